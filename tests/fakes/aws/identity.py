"""Who calls: STS for keys and web identities (IRSA), and the agent of EKS Pod Identity on the node."""

import itertools
import json
import time
from collections.abc import Mapping

from tests.fakes.aws.model import Refused
from tests.fakes.faults import Fault, Faults
from tests.fakes.wire import Reply, Request


class Identity:
    """Keys that AWS gave out. `tokens` are the web identities that it takes, None is any; `lifetime` is in seconds."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.tokens: set[str] | None = None
        self.lifetime = 3600.0
        self.given: list[str] = []
        self._revoked: set[str] = set()
        self._numbers = itertools.count(1)

    def issue(self, prefix: str) -> dict[str, str]:
        """Credentials for a while, with a key of their own."""
        key = f"{prefix}{next(self._numbers):012d}"
        self.given.append(key)
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lifetime))
        return {"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": end}

    def revoke(self) -> None:
        """Whatever was given so far is worth nothing."""
        self._revoked |= set(self.given)

    def is_expired(self, key: str) -> bool:
        """Whether the key was given out and is worth nothing any more."""
        return key in self._revoked

    def sts(self, action: str, form: Mapping[str, str]) -> Reply:
        """Security Token Service, as far as a driver goes."""
        arn = f"arn:aws:sts::{self.account}:assumed-role/caa/node"
        if action == "GetCallerIdentity":
            inner = f"<Arn>{arn}</Arn><UserId>AROA:node</UserId><Account>{self.account}</Account>"
        elif self.tokens is not None and form.get("WebIdentityToken") not in self.tokens:
            raise Refused("InvalidIdentityToken", "Token is expired or unknown.")
        else:
            found = self.issue("ASIAWEB")
            inner = (
                f"<Credentials><AccessKeyId>{found['AccessKeyId']}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
                f"<SessionToken>t</SessionToken><Expiration>{found['Expiration']}</Expiration></Credentials>"
            )
        text = (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{inner}'
            f"</{action}Result><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></{action}Response>"
        )
        return Reply(body=text.encode(), headers={"Content-Type": "text/xml"})


class PodIdentity:
    """`Service`: the agent of EKS Pod Identity. A pod's token (`tokens`) gets it credentials."""

    def __init__(self, identity: Identity) -> None:
        self.faults, self.identity = Faults(), identity
        self.tokens: set[str] = set()

    def call_of(self, request: Request) -> str:
        return f"{request.method} {request.path}"

    def refusal(self, fault: Fault, request: Request) -> Reply:
        return Reply(status=429 if fault is Fault.THROTTLED else 500)

    def answer(self, request: Request) -> Reply:
        if (request.method, request.path) != ("GET", "/v1/credentials"):
            return Reply(status=404)
        if request.headers.get("authorization") not in self.tokens:
            return Reply(status=401, body=b'{"message": "the token is not valid"}')
        return Reply(
            body=json.dumps(self.identity.issue("ASIAPOD")).encode(), headers={"Content-Type": "application/json"}
        )
