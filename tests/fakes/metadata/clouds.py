"""What each cloud's metadata service answers and refuses, after its documentation. `None` is a VM without user data."""

import base64
import json
import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

from tests.fakes.metadata.server import Asked, Reply, Tokens, lifetime


@dataclass
class Aws:
    """EC2 with `HttpTokens=required`: no answer without a token of version 2, which only a PUT gives."""

    user_data: bytes | None
    enabled: bool = True
    tokens: Tokens = field(default_factory=Tokens)

    def __call__(self, asked: Asked) -> Reply:
        if not self.enabled:
            return Reply(403)
        if asked.path == "/latest/api/token":
            return self._token(asked)
        if asked.method not in ("GET", "HEAD"):
            return Reply(405)
        if not self.tokens.good(asked.headers.get("x-aws-ec2-metadata-token", "")):
            return Reply(401)
        if asked.path != "/latest/user-data" or self.user_data is None:
            return Reply(404)
        return Reply(200, self.user_data, {"Content-Type": "application/octet-stream"})

    def _token(self, asked: Asked) -> Reply:
        if asked.method != "PUT":
            return Reply(405)
        seconds = lifetime(asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", ""))
        if not seconds:
            return Reply(400)
        return Reply(200, self.tokens.fresh(seconds).encode(), {"Content-Type": "text/plain"})


@dataclass
class Azure:
    """Azure: the header `Metadata: true`, a known `api-version`, and `format=text` for a leaf."""

    user_data: bytes | None
    versions: tuple[str, ...] = ("2021-01-01", "2021-02-01", "2023-07-01")

    def __call__(self, asked: Asked) -> Reply:
        if asked.headers.get("metadata", "").lower() != "true":
            return self._bad("Bad request. Required metadata header not specified")
        if asked.method != "GET":
            return Reply(405)
        if asked.query.get("api-version") not in self.versions:
            return self._bad("Bad request. api-version is invalid or was not specified in the request.")
        if asked.path != "/metadata/instance/compute/userData":
            return Reply(404)
        if asked.query.get("format") != "text":
            return self._bad("Bad request. format=text is needed for a leaf")
        return Reply(200, base64.b64encode(self.user_data or b""), {"Content-Type": "text/plain; charset=utf-8"})

    def _bad(self, text: str) -> Reply:
        return Reply(400, json.dumps({"error": text, "newest-versions": self.versions}).encode())


@dataclass
class Gcp:
    """Compute Engine: every answer names its flavour, every request has to."""

    user_data: bytes | None
    encode: bool = True

    def __call__(self, asked: Asked) -> Reply:
        flavor = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
        if asked.headers.get("metadata-flavor") != "Google":
            return Reply(403, b"Missing required header", flavor)
        if asked.method != "GET":
            return Reply(405, headers=flavor)
        if asked.path != "/computeMetadata/v1/instance/attributes/user-data" or self.user_data is None:
            return Reply(404, headers=flavor)
        body = base64.b64encode(self.user_data) if self.encode else self.user_data
        return Reply(200, body, {**flavor, "Content-Type": "application/text"})


@dataclass
class AlibabaCloud:
    """ECS. `hardened`: nothing without a token; `tokens_known` is false with servers of old."""

    user_data: bytes | None
    hardened: bool = True
    tokens_known: bool = True
    tokens: Tokens = field(default_factory=Tokens)

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/latest/api/token" and self.tokens_known:
            seconds = lifetime(asked.headers.get("x-aliyun-ecs-metadata-token-ttl-seconds", ""))
            if asked.method != "PUT":
                return Reply(405)
            return Reply(200, self.tokens.fresh(seconds).encode()) if seconds else Reply(400)
        token = asked.headers.get("x-aliyun-ecs-metadata-token")
        if (self.hardened or token is not None) and not self.tokens.good(token or ""):
            return Reply(403)
        if asked.path != "/latest/user-data" or self.user_data is None:
            return Reply(404)
        return Reply(200, self.user_data)


@dataclass
class IbmCloud:
    """VPC: a dated version in every query, a token by PUT with the flavour, then `Authorization: Bearer`."""

    user_data: bytes | None
    enabled: bool = True
    tokens: Tokens = field(default_factory=Tokens)

    def __call__(self, asked: Asked) -> Reply:
        if not self.enabled:
            return Reply(403)
        version = asked.query.get("version", "")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", version) or version < "2022-03-01":
            return _errors(400, "missing_field", "version")
        if asked.path == "/instance_identity/v1/token":
            return self._token(asked)
        kind, _, token = asked.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or not self.tokens.good(token):
            return _errors(401, "not_authorized", "The request is not authorized.")
        if asked.method != "GET" or asked.path != "/metadata/v1/instance/initialization":
            return _errors(404, "not_found", asked.path)
        known = {"user_data": self.user_data.decode()} if self.user_data is not None else {}
        return Reply(200, json.dumps({"keys": [], **known}).encode(), {"Content-Type": "application/json"})

    def _token(self, asked: Asked) -> Reply:
        if asked.method != "PUT" or asked.headers.get("metadata-flavor") != "ibm":
            return _errors(400, "missing_header", "Metadata-Flavor")
        try:
            seconds = json.loads(asked.body or b"{}").get("expires_in", 300)
        except (ValueError, AttributeError):
            return _errors(400, "bad_json", "the body")
        if not isinstance(seconds, int) or not 5 <= seconds <= 3600:
            return _errors(400, "bad_field", "expires_in")
        body = {"access_token": self.tokens.fresh(seconds), "expires_in": seconds}
        return Reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _errors(status: int, code: str, message: str) -> Reply:
    return Reply(status, json.dumps({"errors": [{"code": code, "message": message}], "trace": "0"}).encode())


@dataclass
class WireServer:
    """Azure's: versions without a header, everything else with one; a report is checked as XML."""

    reports: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Reply:
        what = (asked.method, asked.path, asked.query.get("comp"))
        if what == ("GET", "/", "versions"):
            return Reply(200, b"<Versions><Supported><Version>2012-11-30</Version></Supported></Versions>")
        if asked.headers.get("x-ms-version") != "2012-11-30":
            return Reply(400)
        if what == ("GET", "/machine/", "goalstate"):
            return Reply(200, GOAL_STATE)
        if what != ("POST", "/machine/", "health"):
            return Reply(404)
        if asked.headers.get("content-type") != "text/xml; charset=utf-8":
            return Reply(415)
        return self._report(asked.body)

    def _report(self, body: bytes) -> Reply:
        try:
            root = ElementTree.fromstring(body)
        except ElementTree.ParseError:
            return Reply(400)
        role = "Container/RoleInstanceList/Role/"
        paths = ("GoalStateIncarnation", "Container/ContainerId", f"{role}InstanceId", f"{role}Health/State")
        words = tuple(root.findtext(path, "") for path in paths)
        if root.tag != "Health" or words[:3] != ("1", "c-0123", "i-4567.web_1"):
            return Reply(410)
        self.reports.append(words)
        return Reply(200)


GOAL_STATE = (
    b"<GoalState><Version>2012-11-30</Version><Incarnation>1</Incarnation><Container><ContainerId>c-0123</ContainerId>"
    b"<RoleInstanceList><RoleInstance><InstanceId>i-4567.web_1</InstanceId></RoleInstance></RoleInstanceList>"
    b"</Container></GoalState>"
)
CLOUDS = {"aws": Aws, "azure": Azure, "gcp": Gcp, "alibabacloud": AlibabaCloud, "ibmcloud": IbmCloud}
