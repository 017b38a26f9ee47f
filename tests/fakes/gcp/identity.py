"""Who asks: the token endpoint, the security token service, the metadata server, and the tokens they gave out."""

import json
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

from tests.fakes.gcp.api import called, problems
from tests.fakes.wire import Reply, Request

EMAIL = "caa@demo-project.iam.gserviceaccount.com"
_IMPERSONATE = f"/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken"
_FEDERATION: Mapping[str, Any] = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
}


@lru_cache(maxsize=4)
def key_pair(number: int = 0) -> tuple[str, str]:
    """A private and a public key as PEM, the same in a whole run for the same number."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def key_file(url: str, number: int = 0) -> str:
    """A service account's key, as an operator downloads it; `url` is where tokens are to be had."""
    private, _ = key_pair(number)
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "demo-project",
            "private_key_id": f"key-{number}",
            "private_key": private,
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": f"{url}/token",
        }
    )


def federation_file(url: str, token_file: str, *, impersonate: bool = False) -> str:
    """The configuration of workload identity federation; `impersonate` goes on to be the service account."""
    account = {"service_account_impersonation_url": f"{url}{_IMPERSONATE}"} if impersonate else {}
    return json.dumps(
        _FEDERATION | {"token_url": f"{url}/v1/token", "credential_source": {"file": token_file}, **account}
    )


def aws_federation_file(url: str) -> str:
    """The same for a node in AWS, which proves who it is by a signed request."""
    source = {
        "environment_id": "aws1",
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity",
    }
    kind = "urn:ietf:params:aws:token-type:aws4_request"
    return json.dumps(
        _FEDERATION | {"subject_token_type": kind, "token_url": f"{url}/v1/token", "credential_source": source}
    )


class Identity:
    """Gives tokens and knows them. `keys` are the service account's valid ones, `subjects` the cluster's tokens."""

    def __init__(self) -> None:
        self.keys = {0}
        self.subjects = {"cluster-token-1"}
        self.tokens: set[str] = set()
        self.given: list[str] = []
        self.lifetime = 3600

    def knows(self, request: Request) -> bool:
        """Whether the request carries a token of ours that still counts, or one that the key's owner signed."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return token in self.tokens or (token.count(".") == 2 and self._is_signed(token))

    def revoke(self) -> None:
        """No token that was given counts any more."""
        self.tokens.clear()

    def answer(self, request: Request) -> Reply | None:
        """The answer, None when the request is not for us."""
        if request.path == "/token":
            return self._signed(request)
        if request.path == "/v1/token":
            return self._exchanged(request)
        if request.path == _IMPERSONATE:
            return self._impersonated(request)
        if request.path.startswith("/computeMetadata/") or request.path == "/":
            return self._metadata(request)
        return None

    def _signed(self, request: Request) -> Reply:
        if self._is_signed(request.form.get("assertion", "")):
            return self._token("key")
        return _json(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})

    def _is_signed(self, assertion: str) -> bool:
        for number in sorted(self.keys):
            try:
                claims = jwt.decode(assertion, certs=key_pair(number)[1])
            except (ValueError, GoogleAuthError):
                continue
            return bool(claims["iss"] == EMAIL)
        return False

    def _exchanged(self, request: Request) -> Reply:
        subject = request.form.get("subject_token", "")
        if request.form.get("subject_token_type", "").endswith("aws4_request"):
            subject = _signer(subject)
        if subject not in self.subjects:
            return _json(400, {"error": "invalid_grant", "error_description": "The token is not accepted."})
        return self._token("federation", issued_token_type="urn:ietf:params:oauth:token-type:access_token")

    def _impersonated(self, request: Request) -> Reply:
        """The service account's token for the federation's; the body is validated as any API's."""
        call, body = called(request.method, request.path), json.loads(request.body)
        if not self.knows(request) or call is None or list(problems(call, {}, body)):
            return _json(403, {"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}})
        token = json.loads(self._token("impersonation").body)["access_token"]
        return _json(200, {"accessToken": token, "expireTime": "2099-01-01T00:00:00Z"})

    def _metadata(self, request: Request) -> Reply:
        if request.path != "/" and request.headers.get("metadata-flavor") != "Google":
            return _json(403, {"error": "no Metadata-Flavor"})
        account = "/computeMetadata/v1/instance/service-accounts/"
        headers = {"Metadata-Flavor": "Google", "Content-Type": "text/plain"}
        if request.path.startswith(account) and request.path.endswith("/token"):
            return self._token("metadata")
        if request.path.startswith(account):
            return _json(200, {"email": EMAIL, "scopes": ["cloud-platform"], "aliases": ["default"]})
        words = {"project-id": "demo-project", "universe-domain": "googleapis.com"}
        return Reply(body=words.get(request.path.rpartition("/")[2], "").encode(), headers=headers)

    def _token(self, source: str, **other: str) -> Reply:
        token = f"ya29.{secrets.token_hex(16)}"
        self.tokens.add(token)
        self.given.append(source)
        return _json(200, {"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer", **other})


def _signer(subject: str) -> str:
    """The access key that a signed GetCallerIdentity names."""
    signed = json.loads(unquote(subject))
    headers = {one["key"].lower(): one["value"] for one in signed["headers"]}
    found = re.search(r"Credential=([^/]+)/", headers["authorization"])
    return found[1] if found and signed["method"] == "POST" else ""


def _json(status: int, body: Mapping[str, Any]) -> Reply:
    headers = {"Content-Type": "application/json", "Metadata-Flavor": "Google"}
    return Reply(status=status, body=json.dumps(body).encode(), headers=headers)
