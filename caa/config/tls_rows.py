"""Rows of the TLS link between relay and pod VM."""

from pathlib import Path

from caa.config.kinds import BOOL, OPTIONAL_PATH, duration
from caa.config.setting import AnySetting, Setting
from caa.config.tls import CIPHER_SUITES, TLS_VERSION

CACERT_FILE: Setting[Path | None] = Setting(
    name="cacert_file",
    env="CACERT_FILE",
    flag="ca-cert-file",
    kind=OPTIONAL_PATH,
    default=None,
    help="CA of the forwarders' certificates, PEM. Set it together with CERT_FILE and CERT_KEY, or none of them.",
)
CERT_FILE: Setting[Path | None] = Setting(
    name="cert_file",
    env="CERT_FILE",
    flag="cert-file",
    kind=OPTIONAL_PATH,
    default=None,
    help="Our client certificate, PEM; empty has the node make its own CA and certificates.",
)
CERT_KEY: Setting[Path | None] = Setting(
    name="cert_key",
    env="CERT_KEY",
    flag="cert-key",
    kind=OPTIONAL_PATH,
    default=None,
    help="Private key of CERT_FILE, PEM.",
)
TLS_SKIP_VERIFY: Setting[bool] = Setting(
    name="tls_skip_verify",
    env="TLS_SKIP_VERIFY",
    flag="tls-skip-verify",
    kind=BOOL,
    default=False,
    help="Do not verify the forwarder's certificate. For tests only.",
)
TLS_MIN_VERSION: Setting[str] = Setting(
    name="tls_min_version",
    env="TLS_MIN_VERSION",
    flag="tls-min-version",
    kind=TLS_VERSION,
    default="",
    help="Oldest TLS version for the link to a pod VM, fixed when the VM is made; empty is TLS 1.2.",
)
TLS_CIPHER_SUITES: Setting[tuple[str, ...]] = Setting(
    name="tls_cipher_suites",
    env="TLS_CIPHER_SUITES",
    flag="tls-cipher-suites",
    kind=CIPHER_SUITES,
    default=(),
    help="Cipher suites for TLS 1.2, fixed when the VM is made; TLS 1.3 suites may be named and are always on.",
)
DISABLE_TLS: Setting[bool] = Setting(
    name="disable_tls",
    flag="disable-tls",
    kind=BOOL,
    default=False,
    help="Speak to the forwarder in clear. For tests only.",
)
CLIENT_CERT_LIFETIME: Setting[float] = Setting(
    name="client_cert_lifetime",
    env="CAA_CLIENT_CERT_LIFETIME",
    flag="client-cert-lifetime",
    kind=duration(600.0),
    default=86400.0,
    help="Lifetime of the client certificate that the node makes for itself; renewed when a third is left.",
)
CA_ROTATION: Setting[float] = Setting(
    name="ca_rotation",
    env="CAA_CA_ROTATION",
    flag="ca-rotation",
    kind=duration(),
    default=365 * 86400.0,
    live=True,
    help="Age at which the node makes itself a new CA for new pod VMs; the old one goes with the last pod VM that "
    "trusts it. 0 leaves it to `caa certs rotate ca`.",
)
CERT_WARNING: Setting[float] = Setting(
    name="cert_warning",
    env="CAA_CERT_WARNING",
    flag="cert-warning",
    kind=duration(),
    default=30 * 86400.0,
    live=True,
    help="How long before its end the log begins to tell of a certificate, once a day, but not before the last quarter "
    "of its life; the last quarter of that time is told as errors.",
)

TLS_ROWS: tuple[AnySetting, ...] = (
    CACERT_FILE,
    CERT_FILE,
    CERT_KEY,
    TLS_SKIP_VERIFY,
    TLS_MIN_VERSION,
    TLS_CIPHER_SUITES,
    DISABLE_TLS,
    CLIENT_CERT_LIFETIME,
    CA_ROTATION,
    CERT_WARNING,
)
