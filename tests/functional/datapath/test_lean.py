"""What the processes weigh: modules, memory, idle pods."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import caa.datapath

RSS_LISTENING_KIB = 17 * 1024
RSS_PER_POD_KIB = 48


def allowed() -> set[str]:
    """The list in the package's docstring."""
    text = caa.datapath.__doc__ or ""
    line = next(line for line in text.splitlines() if "__future__" in line)
    return set(line.split())


def test_the_forwarders_process_has_only_the_modules_of_the_list() -> None:
    root = str(Path(caa.__file__).parents[1])
    program = (
        "import sys; before = set(sys.modules)\n"
        f"sys.path.insert(0, {root!r})\n"
        "import podvm.forwarder\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", program]
    found = set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
    ours = {name for name in found if name.split(".")[0] in ("caa", "podvm")}
    assert found - ours <= allowed()
    assert ours <= {
        "caa", "podvm", "podvm.forwarder", "podvm.rewrites", "podvm.volumes",
        *(f"caa.datapath{name}" for name in
          ("", ".branch", ".edits", ".flags", ".frames", ".loop", ".mux", ".pipe", ".sockets", ".tls",
           ".clock", ".door", ".greeter", ".greeting", ".heartbeat", ".replay", ".session", ".session_branch")),
    }  # fmt: skip


# The forwarder's own program, which tells its modules at the end of a life with clients and calls.
_TELLING = """
import sys; before = set(sys.modules)
sys.path.insert(0, {root!r})
from podvm.forwarder import main
try:
    main(sys.argv[1:])
finally:
    print("modules", *sorted(set(sys.modules) - before), flush=True)
"""


def test_nothing_is_imported_later(
    start_guest: Any, agent: Any, relay: Any, shim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that has listened, served and unmounted, not one that has only imported."""
    monkeypatch.setattr("podvm.forwarder._PROGRAM", _TELLING)
    guest = start_guest(agent.path)
    assert relay.ask("Open", guest.opening.payload())[0] == (0, "")
    assert shim(relay.agent_socket()).call("Echo", b"x")[0] == (0, "")
    assert shim(relay.agent_socket()).call("DestroySandbox")[0] == (0, "")
    guest.process.stop()
    (line,) = [line for line in guest.process.text().splitlines() if line.startswith("modules ")]
    found = {name for name in line.split()[1:] if name.split(".")[0] not in ("caa", "podvm")}
    assert found <= allowed()
    assert "_ssl" in found


def test_the_forwarder_is_small_while_listening(start_guest: Any, agent: Any) -> None:
    start_guest(agent.path)  # compiles what is not compiled yet
    guest = start_guest(agent.path)
    assert guest.process.status("VmRSS") <= RSS_LISTENING_KIB


def test_an_idle_pod_costs_little(relay: Any, guest: Any, shim: Any) -> None:
    for number in range(5):
        assert relay.ask("Open", replace(guest.opening, sandbox=f"warm{number}").payload())[0] == (0, "")
    before = relay.process.status("VmRSS")
    for number in range(25):
        assert relay.ask("Open", replace(guest.opening, sandbox=f"pod{number}").payload())[0] == (0, "")
        assert shim(relay.agent_socket(f"pod{number}")).call("Echo", b"x")[0] == (0, "")
    assert (relay.process.status("VmRSS") - before) / 25 <= RSS_PER_POD_KIB
