"""Who gets tokens of the fake Azure, and which are good: Entra's token endpoint, the metadata server of a node."""

import base64
import itertools
import json
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.fakes.azure.model import Refused, answer
from tests.fakes.faults import Fault, Faults
from tests.fakes.wire import Reply, Request

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_IMDS = "/metadata/identity/oauth2/token"


@dataclass
class Identity:
    """One tenant. `secrets` are good client secrets and federated assertions, `certificates` good ones to sign with;
    `assigned` are the identities of the node by client id, "" its own. `audience` is what tokens are for."""

    tenant: str
    audience: str = "https://management.azure.com"
    client: str = "client"
    secrets: set[str] = field(default_factory=lambda: {"secret"})
    certificates: list[x509.Certificate] = field(default_factory=list)
    assigned: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    seconds: int = 3600
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def is_good(self, authorization: str) -> bool:
        """Whether this header's token is one that was given and not revoked."""
        return authorization.removeprefix("Bearer ") in self.tokens

    def revoke(self) -> None:
        """No token that was given so far is good any more."""
        self.tokens.clear()

    def discover(self, request: Request) -> Reply:
        """The document by which clients find the token endpoint."""
        if request.path.split("/")[1] != self.tenant:
            return _refusal("invalid_tenant", "AADSTS90002: Tenant not found.", status=400)
        base = f"https://{request.headers['host']}/{self.tenant}"
        found = {"authorization_endpoint": f"{base}/oauth2/v2.0/authorize", "issuer": f"{base}/v2.0"}
        return answer({**found, "token_endpoint": f"{base}/oauth2/v2.0/token"})

    def token(self, request: Request) -> Reply:
        """Entra's answer to a request for a token."""
        form = request.form
        if request.path.split("/")[1] != self.tenant:
            return _refusal("invalid_request", "AADSTS90002: Tenant not found.", status=400)
        if form.get("grant_type") != "client_credentials":
            return _refusal("unsupported_grant_type", "AADSTS70003: The grant type is not supported.", status=400)
        if form.get("scope", "").split()[0] != f"{self.audience}/.default":
            return _refusal("invalid_scope", "AADSTS70011: The scope is not valid.", status=400)
        if form.get("client_id") != self.client:
            return _refusal("unauthorized_client", "AADSTS700016: Application not found in the directory.", status=400)
        if not self._is_proven(form):
            return _refusal("invalid_client", "AADSTS7000215: Invalid client secret provided.", status=401)
        return answer({"token_type": "Bearer", "expires_in": self.seconds, "access_token": self._made()})

    def of_node(self, request: Request) -> Reply:
        """The metadata server's answer; it speaks plain HTTP, and only to who says `Metadata: true`."""
        query = request.query
        if request.headers.get("metadata") != "true" or "api-version" not in query:
            return _refusal("invalid_request", "Required metadata header not specified.", status=400)
        if query.get("resource") != self.audience:
            return _refusal("invalid_resource", "AADSTS500011: The resource principal was not found.", status=400)
        if query.get("client_id", "") not in self.assigned:
            return _refusal("invalid_request", "Identity not found", status=400)
        made = {"access_token": self._made(), "expires_in": str(self.seconds), "resource": self.audience}
        return answer({**made, "token_type": "Bearer"})

    def refusal(self, fault: Fault, retry_after: float) -> Reply:
        """How both say no for other reasons."""
        if fault is Fault.UNAUTHORISED:
            return _refusal("invalid_client", "AADSTS7000215: Invalid client secret provided.", status=401)
        if fault is Fault.THROTTLED:
            return answer({"error": "throttled"}, status=429, headers={"Retry-After": f"{retry_after:g}"})
        return _refusal("temporarily_unavailable", "AADSTS90033: A transient error has occurred.", status=503)

    def _is_proven(self, form: dict[str, str]) -> bool:
        if "client_assertion" not in form:
            return form.get("client_secret", "") in self.secrets
        if form.get("client_assertion_type") != _ASSERTION:
            return False
        given = form["client_assertion"]
        return given in self.secrets or any(_is_signed(given, one) for one in self.certificates)

    def _made(self) -> str:
        token = f"token-{next(self._numbers)}"
        self.tokens.add(token)
        return token


class Metadata:
    """The metadata server of a node on the wire."""

    def __init__(self, identity: Identity) -> None:
        self.identity, self.faults = identity, Faults()

    def call_of(self, request: Request) -> str:
        return "Metadata.Token" if request.path == _IMDS else ""

    def answer(self, request: Request) -> Reply:
        if request.path == _IMDS and request.method == "GET":
            return self.identity.of_node(request)
        return Refused("NotFound", f"{request.path} is nothing here.", status=404).reply()

    def refusal(self, fault: Fault, request: Request) -> Reply:
        return self.identity.refusal(fault, self.faults.retry_after)


def _refusal(error: str, words: str, *, status: int) -> Reply:
    return answer({"error": error, "error_description": words}, status=status)


def _is_signed(assertion: str, certificate: x509.Certificate) -> bool:
    """Whether a JWT was signed (PS256) with the key of this certificate, and is about whom it says."""
    try:
        head, body, signature = assertion.split(".")
        key = certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        salted = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
        key.verify(_decoded(signature), f"{head}.{body}".encode(), salted, hashes.SHA256())
    except (ValueError, InvalidSignature):
        return False
    claims = json.loads(_decoded(body))
    return bool(claims["iss"] == claims["sub"] and claims["aud"])


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
