"""The operator's TLS profile: which versions and cipher suites may be named, and what OpenSSL calls them. Pure."""

from collections.abc import Iterable
from types import MappingProxyType

from caa.config.kinds import list_of
from caa.config.setting import Kind

VERSIONS = MappingProxyType(
    {
        "": "",
        "versiontls12": "VersionTLS12",
        "versiontls13": "VersionTLS13",
        "1.2": "VersionTLS12",
        "1.3": "VersionTLS13",
    }
)

# IANA name -> OpenSSL name: the suites that Go's crypto/tls counts as secure. A TLS 1.3 suite has one name in both.
SUITES = MappingProxyType(
    {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    }
)
TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
# Names that Go keeps for the two suites above from before RFC 7905 was final.
_OLD_NAMES = MappingProxyType(
    {
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    }
)


def parse_version(text: str) -> str:
    """`VersionTLS12`, `VersionTLS13` (Kubernetes' words), `1.2` or `1.3`, as the former; "" stays ""."""
    if text.lower() not in VERSIONS:
        raise ValueError("not a TLS version")
    return VERSIONS[text.lower()]


def parse_suite(name: str) -> str:
    """Check one IANA name; unknown and insecure suites raise `ValueError`."""
    known = _OLD_NAMES.get(name, name)
    if known not in SUITES and known not in TLS13_SUITES:
        raise ValueError("not a known cipher suite")
    return known


def openssl_ciphers(suites: Iterable[str]) -> str:
    """The TLS 1.2 suites among `suites` as an OpenSSL cipher string, "" when there are none (keep OpenSSL's default).

    TLS 1.3 suites are left out: neither Go's crypto/tls nor Python's ssl lets a program choose among them.
    """
    return ":".join(SUITES[name] for name in suites if name in SUITES)


def only_tls13(suites: Iterable[str]) -> bool:
    """Whether the list names suites, and none that TLS 1.2 can use."""
    names = tuple(suites)
    return bool(names) and not any(name in SUITES for name in names)


TLS_VERSION: Kind[str] = Kind(
    name="TLS version", allowed="VersionTLS12 or VersionTLS13 (or 1.2, 1.3)", parse=parse_version, show=str
)
CIPHER_SUITES: Kind[tuple[str, ...]] = list_of(
    parse_suite, "IANA names separated by commas, among: " + ", ".join((*TLS13_SUITES, *SUITES))
)
