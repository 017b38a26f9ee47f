"""The guest's command line takes the reference's flags, with one dash or two."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from caa.datapath.flags import FlagError
from caa.errors import InvalidInput
from podvm import boot, cli, prepare, provision
from podvm.clouds.contract import Source
from podvm.measure import Presence, Tpm


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records which program was run with which options, in place of running it."""
    calls: list[Any] = []
    monkeypatch.setattr(boot, "boot", lambda options, sources: calls.append(options) or 0)
    monkeypatch.setattr(provision, "run", lambda sources, rules: calls.append(rules) or 0)
    monkeypatch.setattr(prepare, "prepare", lambda options: calls.append(options) or ["/lean", "-x"])
    monkeypatch.setattr(os, "execv", lambda path, command: calls.append((path, command)) or 0)
    return calls


def test_process_user_data(programs: list[Any]) -> None:
    assert cli.main(["process-user-data"]) == 0
    assert cli.main(["process-user-data", "provision-files", "-unmeasured-attestation"]) == 0
    assert [rules.unmeasured_attestation for rules in programs] == [False, True]


def test_an_image_says_what_it_has(programs: list[Any]) -> None:
    flags = ["-tpm", "required", "-tpm-device=/dev/tpm9", "-source", "ibmcloud", "-user-data-fetch-timeout", "30"]
    cli.main(["process-user-data", *flags])
    cli.main(["process-user-data"])
    assert (programs[0].source, programs[0].fetch_seconds) == ("ibmcloud", 30.0)
    assert programs[0].tpm == Tpm(presence=Presence.REQUIRED, device=Path("/dev/tpm9"))
    assert programs[1].tpm == Tpm(presence=Presence.AUTO, device=Path("/dev/tpmrm0"))


def test_the_forwarder_with_the_reference_units_flags(programs: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    flags = ["-pod-namespace", "/run/netns/podns", "-kata-agent-socket", "/run/kata-containers/agent.sock"]
    files = ["-ca-cert-file=/etc/certificates/ca.crt", "--cert-file", "/c/tls.crt", "-cert-key", "/c/tls.key"]
    profile = ["--tls-min-version=VersionTLS13", "-tls-cipher-suites", "A, B,"]
    assert cli.main(["agent-protocol-forwarder", *flags, *files, *profile]) == 0
    options, (path, command) = programs
    assert options == prepare.Options(
        ca_file="/etc/certificates/ca.crt",
        cert_file="/c/tls.crt",
        key_file="/c/tls.key",
        min_version="VersionTLS13",
        cipher_suites=("A", "B"),
    )
    assert path == "/lean"
    assert command == ["/lean", "-x", "-notify-socket=/run/systemd/notify"]


@pytest.mark.parametrize(("flags", "wanted"), [([], False), (["-disable-tls"], True), (["--disable-tls=false"], False)])
def test_switches_are_written_as_in_go(programs: list[Any], flags: list[str], wanted: bool) -> None:
    cli.main(["agent-protocol-forwarder", *flags])
    assert programs[0].disable_tls is wanted


def test_a_forwarder_that_cannot_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(options: prepare.Options) -> list[str]:
        raise InvalidInput("apf.json is not JSON")

    monkeypatch.setattr(prepare, "prepare", refuse)
    assert cli.main(["agent-protocol-forwarder"]) == 1
    assert "cannot start: apf.json is not JSON" in capsys.readouterr().out


def test_boot_takes_the_agent_behind_two_dashes(programs: list[Any]) -> None:
    assert cli.main(["boot", "-listen", "[::]:15150", "-unmeasured-attestation", "--", "/bin/agent", "--", "-x"]) == 0
    (options,) = programs
    assert options.agent == ("/bin/agent", "--", "-x")
    assert options.forwarder.listen == "[::]:15150"
    assert options.rules.unmeasured_attestation
    assert options.machine == Path("/")


def test_boot_looks_below_a_folder_for_what_the_machine_is(
    programs: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    strings = tmp_path / "sys/class/dmi/id"
    strings.mkdir(parents=True)
    (strings / "sys_vendor").write_text("Amazon EC2\n")
    present: list[str] = []

    def note(options: boot.Options, sources: Sequence[Source]) -> int:
        present.extend(one.name for one in sources if one.present())
        return 0

    monkeypatch.setattr(boot, "boot", note)
    assert cli.main(["boot", "-machine", str(tmp_path), "--", "/bin/agent"]) == 0
    assert present == ["aws"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["boot"], "the agent's command is missing"),
        (["boot", "--"], "the agent's command is missing"),
        (["agent-protocol-forwarder", "-nonsense"], "unknown flag"),
        (["process-user-data", "something"], "unknown flag"),
        (["agent-protocol-forwarder", "-allow-link-local", "169.254.20.10,x"], "-allow-link-local x: an address"),
        (["process-user-data", "-tpm", "perhaps"], "-tpm perhaps: known are required, auto, off"),
    ],
)
def test_a_wrong_command_line_says_why(
    programs: list[Any], capsys: pytest.CaptureFixture[str], argv: list[str], text: str
) -> None:
    assert cli.main(argv) == 2
    assert text in capsys.readouterr().out
    assert programs == []


@pytest.mark.parametrize(("argv", "status"), [([], 0), (["--help"], 0), (["what"], 2)])
def test_help(capsys: pytest.CaptureFixture[str], argv: list[str], status: int) -> None:
    assert cli.main(argv) == status
    assert "agent-protocol-forwarder" in capsys.readouterr().out


def test_boot_options_refuse_unknown_flags() -> None:
    with pytest.raises(FlagError, match="unknown flag"):
        cli.boot_options(["-x", "--", "agent"])
