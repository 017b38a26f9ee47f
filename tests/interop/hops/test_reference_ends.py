"""One hop of ours and, in the other's place, what the reference has there: Go's TLS with containerd's ttrpc on it.

The reference's forwarder takes plain ttrpc over TLS 1.2 or later, with certificates on both sides and no ALPN, and so
does its proxy (cloud-api-adaptor, pkg/util/tlsutil).
"""

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from caa.errors import Code
from caa.wire.status import RpcError

pytestmark = [pytest.mark.needs("go"), pytest.mark.needs("protoc")]

SEVERAL = "check,sizes,errors,deadline,midframe"


def said_ok(cases: str) -> list[str]:
    return [f"ok {case}" for case in cases.split(",")]


# our relay, a forwarder in Go


@pytest.mark.timeout(900)  # the first one builds
def test_each_case_through_our_relay(go_client: Any, go_forwarder: Any, relay: Any, node: Any, case: str) -> None:
    vm = go_forwarder(node)
    relay.open(vm.port, node)
    assert go_client.plays(case, "-socket", str(relay.socket)) == [f"ok {case}"]
    assert go_client.plays(case, "-socket", str(relay.socket)) == [f"ok {case}"]
    (tls,) = vm.process.said("tls")
    assert tls.endswith(f'name "{node.name}", alpn ""')


def test_an_operators_certificates_with_our_relay(go_client: Any, go_forwarder: Any, relay: Any, manual: Any) -> None:
    vm = go_forwarder(manual)
    relay.open(vm.port, manual)
    assert go_client.plays(SEVERAL, "-socket", str(relay.socket)) == said_ok(SEVERAL)
    assert 'name "podvm-server"' in vm.process.text()


def test_two_shims_at_once_on_one_link(go_client: Any, go_forwarder: Any, relay: Any, node: Any, until: Any) -> None:
    """Go's server refuses a stream id that does not grow, and each client counts its own from 1."""
    vm = go_forwarder(node)
    relay.open(vm.port, node)
    clients = [go_client.begins("flight,sizes,deadline", "-socket", str(relay.socket)) for _ in range(2)]
    until(lambda: relay.shims() == [(True, 2)], "both to be connected")
    for client in clients:
        said, complaint = client.communicate(timeout=90)
        assert client.returncode == 0, complaint
        assert said.splitlines() == said_ok("sizes,flight,deadline")
    assert len(vm.process.said("tls")) == 1
    assert relay.shims() == [(True, 0)]


def test_our_relay_edits_nothing(go_client: Any, go_forwarder: Any, relay: Any, node: Any) -> None:
    relay.open(go_forwarder(node).port, node)
    assert go_client.plays("untouched", "-socket", str(relay.socket)) == ["ok untouched"]


def test_the_end_of_the_forwarder_is_told(go_forwarder: Any, relay: Any, node: Any, until: Any) -> None:
    vm = go_forwarder(node)
    relay.open(vm.port, node)
    with socket.socket(socket.AF_UNIX) as shim:
        shim.settimeout(10)
        shim.connect(str(relay.socket))
        vm.process.kill()
        assert shim.recv(1) == b""
    until(lambda: relay.shims() == [(False, 0)], "the link to be lost")
    again = go_forwarder(node)
    relay.open(again.port, node)
    assert relay.shims() == [(True, 0)]


def refused(relay: Any, vm: Any, identities: Any) -> str:
    with pytest.raises(RpcError) as failed:
        relay.open(vm.port, identities)
    assert failed.value.code is Code.UNAUTHENTICATED
    assert relay.shims() == []
    return failed.value.message


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_go_refuses_a_relay_of_another_node(
    go_forwarder: Any, relay: Any, node: Any, node_made: Any, version: str
) -> None:
    vm, other = go_forwarder(node, "-tls-max", version), node_made("other-state")
    stranger = replace(node.client, cert=other.client.cert, key=other.client.key)
    assert "alert" in refused(relay, vm, node.without(client=stranger))
    assert vm.process.said("tls") == []


def test_our_relay_refuses_a_forwarder_that_is_another(
    go_forwarder: Any, relay: Any, node: Any, node_made: Any
) -> None:
    vm = go_forwarder(node)
    assert "Hostname mismatch" in refused(relay, vm, replace(node, name="podvm-another-89abcdef"))
    impostor = replace(node_made("other-state").server, ca=node.server.ca)
    vm = go_forwarder(node.without(server=impostor))
    assert "certificate verify failed" in refused(relay, vm, node)


# an adaptor in Go, our forwarder


def dialled(vm: Any, identities: Any, *more: str) -> list[str]:
    """The Go client's flags."""
    return ["-dial", f"127.0.0.1:{vm.port}", "-name", identities.name, *identities.client.flags(), *more]


@pytest.mark.root
def test_each_case_to_our_forwarder(go_client: Any, our_forwarder: Any, node: Any, case: str) -> None:
    vm = our_forwarder(node)
    assert go_client.plays(case, *dialled(vm, node)) == [f"ok {case}"]
    assert go_client.plays(case, *dialled(vm, node)) == [f"ok {case}"], "an adaptor that has restarted"
    assert "malformed" not in vm.process.text()


@pytest.mark.root
@pytest.mark.parametrize("identities", ["reference", "manual"], indirect=True)
def test_certificates_of_others_to_our_forwarder(go_client: Any, our_forwarder: Any, identities: Any) -> None:
    vm = our_forwarder(identities)
    lines = go_client.lines(SEVERAL, *dialled(vm, identities))
    assert [line for line in lines if line.startswith("ok")] == said_ok(SEVERAL)
    for line in set(lines) - set(said_ok(SEVERAL)):
        assert line.startswith("tls TLS 1.3, ")
        assert line.endswith(f', name "{identities.name}", alpn ""')


@pytest.mark.root
def test_our_forwarder_edits_for_an_adaptor_in_go(go_client: Any, our_forwarder: Any, reference: Any) -> None:
    assert go_client.plays("edited", *dialled(our_forwarder(reference), reference)) == ["ok edited"]


@pytest.mark.root
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_our_forwarder_refuses_who_has_no_certificate_of_its_ca(
    go_client: Any, our_forwarder: Any, node: Any, node_made: Callable[[str], Any], version: str
) -> None:
    """With TLS 1.3 the client believes to be in and hears later, or finds the connection closed."""
    vm, other = our_forwarder(node), node_made("other-state")
    stranger = node.without(client=replace(other.client, ca=node.client.ca))
    complaints = [
        go_client.complains(*dialled(vm, stranger, "-tls-max", version)),
        go_client.complains(*dialled(vm, node, "-tls-max", version, "-cert", "")),
    ]
    if version == "1.2":
        assert "remote error: tls: unknown certificate authority" in complaints[0]
        assert "remote error: tls: handshake failure" in complaints[1]
    assert vm.process.lines(2) == [
        "handshake failed: certificate verify failed: unable to get local issuer certificate",
        "handshake failed: peer did not return a certificate",
    ]
    assert go_client.plays("check", *dialled(vm, node, "-tls-max", version)) == ["ok check"]


@pytest.mark.root
def test_go_refuses_a_forwarder_that_is_another(go_client: Any, our_forwarder: Any, node: Any, node_made: Any) -> None:
    vm = our_forwarder(node)
    wrong = replace(node, name="podvm-another-89abcdef")
    assert "certificate is valid for podvm-interop-0123abcd" in go_client.complains(*dialled(vm, wrong))
    other = node.without(client=replace(node.client, ca=node_made("other-state").client.ca))
    assert "unknown authority" in go_client.complains(*dialled(vm, other))
