"""`local` keeps the drivers' contract, in a network namespace of its own."""

import asyncio
import os
import shlex
import signal
import socket
import sys
import time
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

import providers.local
from caa.config.load import load
from caa.provider.contract import Instance, Provider
from caa.testing.bootable import user_data
from caa.testing.provider_contract import Cloud, ProviderContract
from caa.wire.certs import NodeAuthority
from providers.local.translate import Site

# An agent that listens and does nothing.
AGENT = """
import socket, time
listening = socket.socket(socket.AF_UNIX)
listening.bind("/run/kata-containers/agent.sock")
listening.listen()
time.sleep(1000)
"""


def cgroups(state: Path) -> list[Path]:
    subnet = ip_network("10.199.0.0/24")
    site = Site(state_dir=state, subnet=subnet, bridge="", agent_command=(), python="")
    # Other cgroups of the machine may vanish in the middle of the walk: `os.walk` goes on, `glob` does not.
    return [Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup") if Path(folder).name == site.cgroup_parent]


def killed(state: Path, name: str) -> None:
    """SIGKILL to the pod VM's processes, found by its cgroup; returns when all have ended."""
    for _ in range(1000):
        folders = [Path(folder) for group in cgroups(state) for folder, _, _ in os.walk(group / name)]
        pids = {pid for folder in folders for pid in (folder / "cgroup.procs").read_text().split()}
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)
    raise AssertionError(f"{name} still runs")


@pytest.mark.root
class TestLocal(ProviderContract):
    """In the namespace of `own_network`; whatever is left there at the end of a test is seen."""

    @pytest.fixture
    def cloud(self, tmp_path: Path, own_network: None) -> Cloud:
        state = tmp_path / "local"
        agent = shlex.join([sys.executable, "-I", "-S", "-c", AGENT + f"# {state.name}"])

        def made() -> Provider:
            environ = {"LOCAL_STATE_DIR": str(state), "LOCAL_AGENT_COMMAND": agent}
            return providers.local.make(load(providers.local.SETTINGS, environ))

        def nothing_left() -> bool:
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
            assert cgroups(state) == []
            assert [*state.glob("vms/*"), *state.glob("addresses/*"), *state.glob("new-*")] == []
            return True

        async def halted(instance: Instance) -> None:
            await asyncio.to_thread(killed, state, instance.name)

        boots = user_data(NodeAuthority.load_or_create(tmp_path), "podvm-web-0a1b2c3d")
        return Cloud(driver=made(), restarted=made, nothing_left=nothing_left, halted=halted, user_data=boots)
