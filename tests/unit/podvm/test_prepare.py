"""The forwarder's first stage: flags over apf.json, private PEM files, the network before the command."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from caa.datapath.flags import Flags
from caa.errors import ConfigError, InvalidInput, NetworkError
from caa.model.network import PodNetwork, Tunnel
from caa.userdata.forwarder import ForwarderConfig, ServerTls, render
from podvm import forwarder, prepare
from podvm.prepare import Options

TLS = ServerTls(client_ca="CA", cert="CERT", key="KEY", min_version="VersionTLS12", cipher_suites=("A", "B"))
CONFIG = ForwarderConfig(
    pod_name="web",
    pod_namespace="default",
    network=PodNetwork(
        interface="eth0", hwaddr="0a:58:0a:32:00:05", mtu=1450, addresses=(ip_interface("10.50.0.5/24"),)
    ),
    tunnel=Tunnel(kind="vxlan", index=0, vni=555000, port=4789, worker=ip_interface("10.0.0.1/24"), mtu=1450),
    tls=TLS,
)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records the networks that were built, in place of the kernel."""
    calls: list[Any] = []
    monkeypatch.setattr("podvm.network.setup", lambda *what, tunnel: calls.append((*what, tunnel)))
    monkeypatch.setattr("podvm.linklocal.deny", lambda path, allowed: calls.append((path, allowed)))
    return calls


@pytest.fixture
def options(tmp_path: Path) -> Options:
    (tmp_path / "apf.json").write_text(render(CONFIG))
    return Options(config=str(tmp_path / "apf.json"), tls_directory=tmp_path / "tls")


def test_the_network_is_built_and_the_lean_stage_named(options: Options, built: list[Any]) -> None:
    command = prepare.prepare(options)
    assert built == [("/run/netns/podns", CONFIG.network, CONFIG.tunnel), ("/run/netns/podns", ())]
    assert command == forwarder.command(*prepare.lean_flags(options, TLS))
    assert "KEY" not in " ".join(command)


def test_what_containers_may_reach_comes_from_both_ends(options: Options, built: list[Any]) -> None:
    config = replace(CONFIG, allow_link_local=(ip_network("169.254.20.10"),))
    Path(options.config).write_text(render(config))
    prepare.prepare(replace(options, allow_link_local=(ip_network("fd00:ec2::254"),)))
    assert built[-1][1] == (ip_network("169.254.20.10"), ip_network("fd00:ec2::254"))


def test_the_pem_texts_become_private_files(options: Options, built: list[Any]) -> None:
    prepare.prepare(options)
    prepare.prepare(options)
    files = prepare.tls_files(options)
    assert {flag: file.read_text() for flag, file in files.items()} == {
        "ca-cert-file": "CA",
        "cert-file": "CERT",
        "cert-key": "KEY",
    }
    assert {oct(file.stat().st_mode & 0o777) for file in files.values()} == {"0o600"}
    assert oct(options.tls_directory.stat().st_mode & 0o777) == "0o700"


def test_the_lean_stage_understands_every_flag(options: Options) -> None:
    flags = Flags(forwarder.flags(), prepare.lean_flags(options, TLS))
    assert flags.text("kata-agent-socket") == "/run/kata-containers/agent.sock"
    assert flags.text("listen") == "0.0.0.0:15150"
    assert flags.text("cert-key") == str(options.tls_directory / "tls.key")
    assert flags.text("tls-min-version") == "VersionTLS12"
    assert flags.text("tls-cipher-suites") == "A,B"
    assert not flags.given("disable-tls")


def test_flags_win_over_apf_json(options: Options) -> None:
    own = replace(
        options,
        ca_file="/c/ca",
        cert_file="/c/crt",
        key_file="/c/key",
        min_version="VersionTLS13",
        cipher_suites=("C",),
    )
    flags = Flags(forwarder.flags(), prepare.lean_flags(own, TLS))
    assert [flags.text(name) for name in ("ca-cert-file", "cert-file", "cert-key")] == ["/c/ca", "/c/crt", "/c/key"]
    assert flags.text("tls-min-version") == "VersionTLS13"
    assert flags.text("tls-cipher-suites") == "C"


def test_without_tls_nothing_is_written(options: Options, built: list[Any]) -> None:
    command = prepare.prepare(replace(options, disable_tls=True))
    assert command[-1] == "-disable-tls"
    assert not options.tls_directory.exists()


@pytest.mark.parametrize(
    ("missing", "flag"), [("client_ca", "ca-cert-file"), ("cert", "cert-file"), ("key", "cert-key")]
)
def test_tls_without_certificates_is_refused(options: Options, missing: str, flag: str) -> None:
    with pytest.raises(ConfigError, match=f"-{flag}"):
        prepare.lean_flags(options, replace(TLS, **{missing: ""}))


@pytest.mark.parametrize("text", [None, b"", b"{}", b"\xff", b"[1]"])
def test_an_apf_json_that_cannot_be_used(options: Options, built: list[Any], text: bytes | None) -> None:
    file = Path(options.config)
    file.unlink()
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(InvalidInput, match=r"apf\.json|pod-network"):
        prepare.prepare(options)
    assert built == []


def test_a_network_that_fails_is_passed_on(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*what: Any, tunnel: Any) -> None:
        raise NetworkError("the kernel refused")

    monkeypatch.setattr("podvm.network.setup", refuse)
    with pytest.raises(NetworkError, match="refused"):
        prepare.prepare(options)
