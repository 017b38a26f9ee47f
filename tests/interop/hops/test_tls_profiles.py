"""TLS_MIN_VERSION and TLS_CIPHER_SUITES against Go's TLS: what both allow is used, and no common ground is refused."""

from typing import Any, NamedTuple

import pytest

from caa.errors import Code
from caa.wire.status import RpcError

pytestmark = [pytest.mark.needs("go"), pytest.mark.needs("protoc")]

AES256, CHACHA = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
RSA_ONLY = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"  # of no use to a certificate of P-256
ONLY_12 = ("-tls-max", "1.2")
ONLY_13 = ("-tls-min", "1.3")


class Profile(NamedTuple):
    """Our minimum and cipher suites, Go's flags, and what both agree on."""

    minimum: str
    suites: str
    flags: tuple[str, ...]
    agreed: str = ""

    def of_link(self) -> dict[str, str]:
        return {"tls_min_version": self.minimum, "cipher_suites": self.suites}

    def of_forwarder(self) -> tuple[str, ...]:
        return f"-tls-min-version={self.minimum}", f"-tls-cipher-suites={self.suites}"


AGREED = [
    Profile("", "", (), "TLS 1.3"),
    Profile("VersionTLS12", "", ONLY_13, "TLS 1.3"),
    Profile("VersionTLS13", "", (), "TLS 1.3"),
    Profile("VersionTLS13", "", ONLY_13, "TLS 1.3"),
    Profile("VersionTLS13", AES256, ONLY_13, "TLS 1.3"),
    Profile("", "", ONLY_12, "TLS 1.2"),
    Profile("VersionTLS12", AES256, ONLY_12, f"TLS 1.2, {AES256}"),
    Profile("VersionTLS12", f"{CHACHA},{AES256}", (*ONLY_12, "-suites", AES256), f"TLS 1.2, {AES256}"),
    Profile("", CHACHA, (*ONLY_12, "-suites", f"{AES256},{CHACHA}"), f"TLS 1.2, {CHACHA}"),
    Profile("", CHACHA, ("-suites", CHACHA), "TLS 1.3"),
]
REFUSED = [
    Profile("VersionTLS13", "", ONLY_12),
    Profile("VersionTLS12", AES256, (*ONLY_12, "-suites", CHACHA)),
    Profile("", RSA_ONLY, ONLY_12),
]
CASES = "check,sizes"
SAID = ["ok check", "ok sizes"]


@pytest.mark.timeout(900)  # the first one builds
@pytest.mark.parametrize("profile", AGREED)
def test_our_relay_agrees_with_go(go_client: Any, go_forwarder: Any, relay: Any, node: Any, profile: Profile) -> None:
    vm = go_forwarder(node, *profile.flags)
    relay.open(vm.port, node, **profile.of_link())
    assert go_client.plays(CASES, "-socket", str(relay.socket)) == SAID
    (tls,) = vm.process.said("tls")
    assert tls.startswith(f"tls {profile.agreed},")


@pytest.mark.parametrize("profile", REFUSED)
def test_our_relay_and_go_have_nothing_in_common(go_forwarder: Any, relay: Any, node: Any, profile: Profile) -> None:
    vm = go_forwarder(node, *profile.flags)
    with pytest.raises(RpcError) as failed:
        relay.open(vm.port, node, **profile.of_link())
    assert failed.value.code is Code.UNAUTHENTICATED
    assert f"pod VM {node.name} at 127.0.0.1 port {vm.port}: " in failed.value.message
    assert relay.shims() == []
    assert vm.process.said("tls") == []


def dialled(vm: Any, node: Any, profile: Profile) -> list[str]:
    return ["-dial", f"127.0.0.1:{vm.port}", "-name", node.name, *node.client.flags(), *profile.flags]


@pytest.mark.root
@pytest.mark.parametrize("profile", AGREED)
def test_go_agrees_with_our_forwarder(go_client: Any, our_forwarder: Any, node: Any, profile: Profile) -> None:
    vm = our_forwarder(node, *profile.of_forwarder())
    first, *said = go_client.lines(CASES, *dialled(vm, node, profile))
    assert first.startswith(f"tls {profile.agreed},")
    assert [line for line in said if line != first] == SAID


@pytest.mark.root
@pytest.mark.parametrize("profile", REFUSED)
def test_go_and_our_forwarder_have_nothing_in_common(
    go_client: Any, our_forwarder: Any, node: Any, profile: Profile
) -> None:
    vm = our_forwarder(node, *profile.of_forwarder())
    assert "remote error: tls: " in go_client.complains(*dialled(vm, node, profile))
    assert "handshake failed" in vm.process.lines(1)[0]
