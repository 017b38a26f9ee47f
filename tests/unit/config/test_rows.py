"""The common keys of the reference, their defaults, and the rules among the node's settings."""

import re
from pathlib import Path

import pytest

from caa.config.checks import NODE_CHECKS
from caa.config.guest import GUEST_ROWS
from caa.config.load import load
from caa.config.node import FORWARDER_PORT, INITDATA, NODE_ROWS, TUNNEL_TYPE, VXLAN_MIN_ID, VXLAN_PORT
from caa.config.relay import PODS_DIR, PROXY_TIMEOUT, RELAY_ROWS, SOCKET
from caa.config.render import docs, show
from caa.config.tls_rows import TLS_CIPHER_SUITES, TLS_MIN_VERSION
from caa.errors import ConfigError

# reference/deploy.md 3.8 and providers.md 0
KEYS = [
    "CLOUD_PROVIDER",
    "REMOTE_HYPERVISOR_ENDPOINT",
    "PODS_DIR",
    "PAUSE_IMAGE",
    "FORWARDER_PORT",
    "PROXY_TIMEOUT",
    "TUNNEL_TYPE",
    "VXLAN_PORT",
    "INITDATA",
    "CLOUD_CONFIG_VERIFY",
    "PEERPODS_LIMIT_PER_NODE",
    "ENABLE_SCRATCH_SPACE",
    "EXTERNAL_NETWORK_VIA_PODVM",
    "POD_SUBNET_CIDRS",
    "CACERT_FILE",
    "CERT_FILE",
    "CERT_KEY",
    "TLS_SKIP_VERIFY",
    "TLS_MIN_VERSION",
    "TLS_CIPHER_SUITES",
    "PROBE_PORT",
    "RUNTIMECLASS_NAME",
    "NODE_NAME",
    "POD_UID",
    "POD_NAMESPACE",
    "CAA_DISK_DETECT_MAX_ATTEMPTS",
    "CAA_DISK_DETECT_RETRY_DELAY",
]
FLAGS = [
    "socket",
    "pods-dir",
    "pause-image",
    "forwarder-port",
    "ca-cert-file",
    "cert-file",
    "cert-key",
    "tls-skip-verify",
    "tls-min-version",
    "tls-cipher-suites",
    "proxy-timeout",
    "tunnel-type",
    "vxlan-port",
    "initdata",
    "cloud-config-verify",
    "peerpods-limit-per-node",
    "enable-scratch-space",
    "ext-network-via-podvm",
    "pod-subnet-cidrs",
    "disable-tls",
    "host-interface",
    "vxlan-min-id",
]
CERTIFICATES = {"CACERT_FILE": "/c/ca.crt", "CERT_FILE": "/c/tls.crt", "CERT_KEY": "/c/tls.key"}


@pytest.mark.parametrize("key", KEYS)
def test_every_common_key_of_the_reference_exists(key: str) -> None:
    assert key in {row.env for row in (*NODE_ROWS, *GUEST_ROWS)}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_common_flag_of_the_reference_exists(flag: str) -> None:
    assert flag in {row.flag for row in NODE_ROWS}


def test_defaults_are_the_reference_s() -> None:
    settings = load(NODE_ROWS, {}, checks=NODE_CHECKS)
    assert settings[SOCKET] == Path("/run/peerpod/hypervisor.sock")
    assert settings[PODS_DIR] == Path("/run/peerpod/pods")
    assert (settings[FORWARDER_PORT], settings[PROXY_TIMEOUT]) == (15150, 300.0)
    assert (settings[TUNNEL_TYPE], settings[VXLAN_PORT], settings[VXLAN_MIN_ID]) == ("vxlan", 4789, 555000)


@pytest.mark.parametrize("row", [*NODE_ROWS, *GUEST_ROWS], ids=lambda row: row.name)
def test_a_default_is_a_legal_value_and_survives_the_way_through_text(row) -> None:
    assert row.kind.parse(row.kind.show(row.default)) == row.default
    assert row.env or row.flag
    assert re.fullmatch(r"[A-Z].*\.", row.help)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"CERT_FILE": "/c"}, ["CERT_FILE", "CACERT_FILE", "CERT_KEY"]),
        ({"CACERT_FILE": "/c"}, ["CACERT_FILE", "CERT_FILE", "CERT_KEY"]),
        ({"CERT_FILE": "/c", "CERT_KEY": "/k"}, ["CACERT_FILE"]),
        ({"CERT_KEY": "/k", "TLS_SKIP_VERIFY": "true"}, ["CERT_FILE"]),
        ({**CERTIFICATES, "TLS_SKIP_VERIFY": "1"}, ["TLS_SKIP_VERIFY", "CACERT_FILE"]),
        ({"TLS_CIPHER_SUITES": "TLS_AES_128_GCM_SHA256"}, ["TLS_CIPHER_SUITES", "TLS_MIN_VERSION"]),
        ({"TLS_CIPHER_SUITES": "RC4"}, ["TLS_CIPHER_SUITES", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]),
        ({"TLS_MIN_VERSION": "1.0"}, ["TLS_MIN_VERSION", "VersionTLS12"]),
        ({"VXLAN_PORT": "70000"}, ["VXLAN_PORT", "65535"]),
        ({"PROXY_TIMEOUT": "300"}, ["PROXY_TIMEOUT", "5m"]),
        ({"PROXY_TIMEOUT": "10ms"}, ["PROXY_TIMEOUT", "at least 1s"]),
        ({"TUNNEL_TYPE": "gre"}, ["TUNNEL_TYPE", "vxlan"]),
        ({"PEERPODS_LIMIT_PER_NODE": "ten"}, ["PEERPODS_LIMIT_PER_NODE"]),
        ({"ENABLE_SCRATCH_SPACE": "on"}, ["ENABLE_SCRATCH_SPACE", "true"]),
        ({"POD_SUBNET_CIDRS": "10.0.0/8"}, ["POD_SUBNET_CIDRS", "CIDR"]),
        ({"INITDATA": "{not base64}"}, ["INITDATA", "base64"]),
        ({"PODS_DIR": "pods"}, ["PODS_DIR", "absolute"]),
        ({"LOG_LEVEL": "loud"}, ["LOG_LEVEL", "debug"]),
        ({"LOG_FORMAT": "xml"}, ["LOG_FORMAT", "json"]),
        ({"PROBE_PORT": "-1"}, ["PROBE_PORT"]),
        ({"CAA_CLUSTER_ID": "a b"}, ["CAA_CLUSTER_ID"]),
        ({"CLOUD_PROVIDER": "../x"}, ["CLOUD_PROVIDER"]),
        ({"HOST_INTERFACE": "a/b"}, ["HOST_INTERFACE"]),
        ({"RUNTIMECLASS_NAME": "Kata"}, ["RUNTIMECLASS_NAME"]),
        ({"NODE_NAME": "-x"}, ["NODE_NAME"]),
        ({"CAA_CLIENT_CERT_LIFETIME": "1m"}, ["CAA_CLIENT_CERT_LIFETIME", "10m"]),
        ({"CONTROL_PLANE_GRACE": "x"}, ["CONTROL_PLANE_GRACE"]),
    ],
)
def test_bad_values_and_contradictions_name_their_settings(environ: dict[str, str], names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(NODE_ROWS, environ, checks=NODE_CHECKS)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize("environ", [CERTIFICATES, {"TLS_MIN_VERSION": "1.3", "TLS_SKIP_VERIFY": "yes"}])
def test_tls_without_tls_is_a_contradiction(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="--disable-tls contradicts"):
        load(NODE_ROWS, environ, flags={"disable-tls": "true"}, checks=NODE_CHECKS)


@pytest.mark.parametrize(
    "environ",
    [
        CERTIFICATES,
        {"TLS_SKIP_VERIFY": "true"},
        {"CERT_FILE": "/c", "CERT_KEY": "/k", "TLS_SKIP_VERIFY": "true"},
        {"TLS_CIPHER_SUITES": "TLS_AES_128_GCM_SHA256", "TLS_MIN_VERSION": "VersionTLS13"},
    ],
)
def test_tls_settings_that_fit_together(environ: dict[str, str]) -> None:
    settings = load(NODE_ROWS, environ, checks=NODE_CHECKS)
    assert settings[TLS_MIN_VERSION] in {"", "VersionTLS13"}
    assert isinstance(settings[TLS_CIPHER_SUITES], tuple)


def test_show_tells_value_and_origin() -> None:
    lines = show(load(RELAY_ROWS, {"PODS_DIR": "/p"}, flags={"proxy-timeout": "90s"})).splitlines()
    assert "PODS_DIR                   = /p  (environment)" in lines
    assert "PROXY_TIMEOUT              = 1m30s  (flag)" in lines
    assert "CONTROL_PLANE_GRACE        = 10m  (default)" in lines


def test_show_cuts_initdata() -> None:
    text = show(load((INITDATA,), {"INITDATA": "A" * 4000}))
    assert "(4000 characters)" in text
    assert len(text) < 200


def test_docs_have_a_line_for_each_row() -> None:
    page = docs({"Node": NODE_ROWS})
    assert page.startswith("# Settings\n")
    for row in NODE_ROWS:
        assert f"| `{row.env}` |" in page if row.env else f"`--{row.flag}`" in page
    assert "| `FORWARDER_PORT` | `--forwarder-port` | `15150` | a whole number from 1 to 65535 |" in page
