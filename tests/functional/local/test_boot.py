"""A local pod VM boots: namespaces, files, podns, agent, forwarder; and ends with everything in it."""

import asyncio
import os
import re
import shutil
import signal
import socket
import ssl
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from caa.errors import ProviderError
from caa.model.instance import Instance
from caa.provider.contract import Provider
from podvm.progress import steps
from providers.local.translate import Site

pytestmark = pytest.mark.root
SUBNET = IPv4Network("10.199.0.0/24")

INITDATA = """algorithm = "sha384"
version = "0.1.0"

[data]
"aa.toml" = "url = 1"
"policy.rego" = "package agent_policy"
"evil.sh" = "x"
"""
# An agent that shows what the guest looks like, then listens.
LOOK = """
import os, socket, subprocess
def show(*command):
    print("LOOK", command[0], subprocess.run(command, capture_output=True, text=True).stdout, flush=True)
show("hostname")
show("id", "-u")
show("sh", "-c", "cd /run/peerpod; stat -c '%a %n' * ; cat aa.toml policy.rego; ls -A /run /media/cidata")
show("sh", "-c", "echo cgroups $(cut -d: -f3 /proc/1/cgroup | sort -u); echo first $(tr '\\\\0' ' ' < /proc/1/cmdline)")
show("ip", "-br", "-4", "addr")
show("ip", "-n", "podns", "-br", "-4", "addr")
show("ip", "route", "get", "10.199.0.1")
listening = socket.socket(socket.AF_UNIX)
listening.bind("/run/kata-containers/agent.sock")
listening.listen()
print("LOOKED", flush=True)
signal = __import__("signal"); signal.pause()
"""
LISTEN = """
import signal, socket
listening = socket.socket(socket.AF_UNIX)
listening.bind("/run/kata-containers/agent.sock")
listening.listen()
signal.pause()
"""
# An agent that runs a container with a memory limit, pauses it, then listens.
RUNC = """
import json, os, pathlib, signal, socket, subprocess
bundle = pathlib.Path("/run/bundle")
(bundle / "rootfs" / "proc").mkdir(parents=True)
subprocess.run(["runc", "spec"], cwd=bundle, check=True)
spec = json.loads((bundle / "config.json").read_text())
spec["process"] |= {"terminal": False, "args": ["sleep", "4217.75"]}
spec["root"]["readonly"] = False
spec["mounts"] += [
    {"destination": f"/{name}", "type": "bind", "source": f"/{name}", "options": ["rbind", "ro"]}
    for name in ("usr", "bin", "lib", "lib64") if os.path.isdir(f"/{name}")
]
spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "network"]
spec["linux"]["namespaces"].append({"type": "network", "path": "/run/netns/podns"})
spec["linux"]["resources"]["memory"] = {"limit": 33554432}
spec["linux"]["cgroupsPath"] = "/agent/c1"
(bundle / "config.json").write_text(json.dumps(spec))
subprocess.run(["runc", "run", "-d", "-b", str(bundle), "c1"], check=True, stdin=subprocess.DEVNULL)
limits = list(pathlib.Path("/sys/fs/cgroup").glob("memory/agent/c1/memory.limit_in_bytes"))
limits += pathlib.Path("/sys/fs/cgroup").glob("agent/c1/memory.max")
print("limit", limits[0].read_text(), flush=True)
subprocess.run(["runc", "pause", "c1"], check=True)
print(subprocess.run(["runc", "list"], capture_output=True, text=True).stdout, "runc is done", flush=True)
listening = socket.socket(socket.AF_UNIX)
listening.bind("/run/kata-containers/agent.sock")
listening.listen()
signal.pause()
"""
# Two processes that a plain kill of the agent would leave: one in a session of its own, one frozen.
ORPHANS = """
import os, subprocess, time
subprocess.Popen(["sleep", "4217.25"], start_new_session=True)
frozen = subprocess.Popen(["sleep", "4217.5"], start_new_session=True)
freezer = "/sys/fs/cgroup/freezer/paused"
if os.path.isdir("/sys/fs/cgroup/freezer"):
    os.mkdir(freezer)
    open(freezer + "/cgroup.procs", "w").write(str(frozen.pid))
    open(freezer + "/freezer.state", "w").write("FROZEN")
print("orphans are there", flush=True)
signal.pause()
"""
CHILD = """
import asyncio, pathlib, sys, shlex, os
import providers.local
from caa.config.load import load
from caa.model.ids import SandboxId
from caa.provider.contract import LaunchRequest, Owner
folder = pathlib.Path({folder!r})
environ = {{
    "LOCAL_STATE_DIR": str(folder / "local"),
    "LOCAL_AGENT_COMMAND": shlex.join([sys.executable, "-I", "-c", {agent!r}]),
}}
driver = providers.local.make(load(providers.local.SETTINGS, environ))
request = LaunchRequest(
    name={name!r}, sandbox=SandboxId("sandbox"), owner=Owner(cluster="c", node="n"), token="t",
    user_data=(folder / "user-data").read_bytes(),
)
asyncio.run(driver.create(request))
os._exit(0)
"""


def orphans() -> list[str]:
    """The processes of `ORPHANS` that live."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes()
        except OSError:
            continue
        if b"sleep\0004217." in line:
            found.append(file.parent.name)
    return found


def handshake(lab: Any, instance: Instance) -> str:
    """The version of TLS that the forwarder speaks, as a node with the right certificates."""
    files = lab.authority.client_files()
    context = ssl.create_default_context(cafile=files.ca_file)
    context.load_cert_chain(files.cert_file, files.key_file)
    with (
        socket.create_connection((str(instance.addresses[0]), 15150), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=instance.name) as secured,
    ):
        return str(secured.version())


def cgroup_parent(lab: Any) -> str:
    """The folder that holds this lab's cgroups."""
    return Site(state_dir=lab.folder / "local", subnet=SUBNET, bridge="", agent_command=(), python="").cgroup_parent


def cgroups_of(lab: Any) -> list[Path]:
    """What is left of this lab's cgroups."""
    return list(Path("/sys/fs/cgroup").glob(f"**/{cgroup_parent(lab)}"))


def init_of(lab: Any, instance: Instance) -> int:
    """The host's number of the pod VM's first process."""
    parent = cgroup_parent(lab)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            numbers = [line for line in (folder / "status").read_text().splitlines() if line.startswith("NSpid")]
            cgroups = (folder / "cgroup").read_text()
        except OSError:
            continue
        if numbers and numbers[0].split()[2:] == ["1"] and f"/{parent}/{instance.name}" in cgroups:
            return int(folder.name)
    raise AssertionError("no first process")


async def killed(pid: int, number: signal.Signals) -> None:
    """Send the signal and return when the process has ended, with everything in its PID namespace."""
    descriptor = os.pidfd_open(pid)
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(descriptor, lambda: ended.done() or ended.set_result(None))
    try:
        os.kill(pid, number)
        await asyncio.wait_for(ended, 10)
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_the_guest_is_as_a_machine_that_just_booted(lab: Any) -> None:
    driver = lab.driver(LOOK)
    instance = await driver.create(lab.request(initdata=INITDATA))
    console = await lab.console(driver, instance, "forwarder listens")
    looked = console.partition("\nLOOKED")[0]
    assert f"LOOK hostname {instance.name}\n" in looked
    assert "LOOK id 0\n" in looked
    for mode_and_name in ("600 aa.toml", "600 apf.json", "600 initdata", "600 initdata.digest", "600 policy.rego"):
        assert mode_and_name in looked
    assert "url = 1package agent_policy" in looked
    assert "evil.sh" not in looked.replace("skipped 'evil.sh'", "")
    assert "meta-data\nuser-data" in looked
    # Its own cgroup is the root of what it sees; on v2 it had to step aside.
    assert re.search(r"cgroups (/|/init|/ /init)$", looked, re.MULTILINE)
    assert re.search("first .* -m podvm boot", looked)
    assert "10.199.0.2/24" in looked
    assert "10.199.0.1 dev eth0" in looked
    assert handshake(lab, instance) == "TLSv1.3"
    await driver.delete(instance.id)


async def test_the_console_tells_the_order_of_the_boot(lab: Any) -> None:
    driver = lab.driver(LISTEN)
    instance = await driver.create(lab.request())
    await lab.console(driver, instance, "forwarder listens")
    seen = steps((await driver.console(instance.id)).decode())
    wanted = ["boot", "podns is there", "agent started", "agent listens", "forwarder started", "forwarder listens"]
    assert [step.text for step in seen if step.text in wanted] == wanted
    assert [step.time for step in seen] == sorted(step.time for step in seen)


@pytest.mark.needs("runc")
async def test_the_stand_in_agent_is_the_default(lab: Any) -> None:
    driver = lab.driver()
    instance = await driver.create(lab.request())
    await lab.console(driver, instance, "forwarder listens")
    assert handshake(lab, instance) == "TLSv1.3"


@pytest.mark.parametrize(
    ("user_data", "reason"),
    [
        (b"#cloud-config\nruncmd: [reboot]\n", "unknown key 'runcmd'"),
        (b"#cloud-config\nwrite_files:\n  - path: /run/peerpod/apf.json\n    content: '{}'\n", "apf.json"),
        (b"#cloud-config\n", "/run/peerpod/apf.json cannot be read"),
    ],
)
async def test_a_guest_that_cannot_boot_says_why_and_halts(lab: Any, user_data: bytes, reason: str) -> None:
    driver = lab.driver(LISTEN)
    instance = await driver.create(lab.request(user_data=user_data))
    console = await lab.console(driver, instance, "podvm: halt")
    assert "podvm: failed: " in console
    assert reason in console
    assert "forwarder started" not in console
    await driver.delete(instance.id)


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        ("raise SystemExit(3)", "agent ended with 3 while the agent"),
        (LISTEN.replace("signal.pause()", "__import__('time').sleep(1.0)"), "agent ended with "),
    ],
)
async def test_without_its_agent_the_pod_vm_ends(lab: Any, agent: str, reason: str) -> None:
    driver = lab.driver(agent)
    instance = await driver.create(lab.request())
    assert reason in await lab.console(driver, instance, "podvm: halt")


def forwarder_of(lab: Any, instance: Instance) -> int:
    """The host's number of the pod VM's forwarder."""
    init = init_of(lab, instance)
    for child in Path(f"/proc/{init}/task/{init}/children").read_text().split():
        if b"podvm.forwarder" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("no forwarder")


async def test_a_killed_forwarder_is_started_again(lab: Any) -> None:
    driver = lab.driver(LISTEN)
    instance = await driver.create(lab.request())
    await lab.console(driver, instance, "forwarder listens")
    for _ in range(3):
        victim = forwarder_of(lab, instance)
        await killed(victim, signal.SIGKILL)
        end = asyncio.get_running_loop().time() + 10
        while True:
            try:
                assert handshake(lab, instance) == "TLSv1.3"
                break
            except ConnectionError:
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.02)
        assert forwarder_of(lab, instance) != victim
    console = (await driver.console(instance.id)).decode()
    assert console.count("forwarder ended with -9\n") == console.count("forwarder started again\n") == 3
    assert "pod network" in console


async def test_a_terminated_guest_stops_its_processes(lab: Any) -> None:
    driver = lab.driver(LISTEN)
    instance = await driver.create(lab.request())
    await lab.console(driver, instance, "forwarder listens")
    await killed(init_of(lab, instance), signal.SIGTERM)
    console = (await driver.console(instance.id)).decode()
    assert "podvm: stop\n" in console
    assert "podvm: halt\n" in console


async def test_a_pod_vm_that_died_is_made_anew_under_the_same_name(lab: Any) -> None:
    driver = lab.driver(LISTEN)
    first = await driver.create(lab.request())
    await lab.console(driver, first, "forwarder listens")
    await killed(init_of(lab, first), signal.SIGKILL)
    second = await driver.create(lab.request())
    assert second.created_at > first.created_at
    await lab.console(driver, second, "forwarder listens")


async def test_a_pod_vm_outlives_the_process_that_made_it(lab: Any) -> None:
    request = lab.request()
    (lab.folder / "user-data").write_bytes(request.user_data)
    child = CHILD.format(folder=str(lab.folder), agent=LISTEN, name=request.name)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", child)
    assert await process.wait() == 0
    driver = lab.driver(LISTEN)
    (instance,) = await driver.list_owned(request.owner)
    await lab.console(driver, instance, "forwarder listens")
    assert await driver.create(request) == instance
    assert handshake(lab, instance) == "TLSv1.3"


async def test_delete_takes_paused_and_orphaned_processes_along(lab: Any) -> None:
    agent = LISTEN.replace("signal.pause()", ORPHANS)
    driver = lab.driver(agent)
    instance = await driver.create(lab.request())
    await lab.console(driver, instance, "orphans are there")
    await driver.delete(instance.id)
    assert orphans() == []


@pytest.mark.needs("runc")
async def test_runc_makes_limited_and_paused_containers_that_a_delete_takes_along(lab: Any) -> None:
    driver = lab.driver(RUNC)
    instance = await driver.create(lab.request())
    console = await lab.console(driver, instance, "forwarder listens")
    assert "limit 33554432\n" in console
    assert "paused" in console.partition("runc is done")[0]
    assert len(orphans()) == 1
    await driver.delete(instance.id)
    assert orphans() == []


async def test_a_start_that_fails_leaves_nothing(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver: Provider = lab.driver(LISTEN)
    first = await driver.create(lab.request())  # so the bridge is there
    monkeypatch.setattr("providers.local.bridge._GUEST_DEVICE", "no/name")
    with pytest.raises(ProviderError, match="the cable of podvm-other-1"):
        await driver.create(lab.request("podvm-other-1"))
    assert [one.name for one in await driver.list_owned(lab.request().owner)] == [first.name]
    assert len(socket.if_nameindex()) == 3  # lo, the bridge, one cable
    assert [one.name for one in (lab.folder / "local" / "addresses").iterdir()] == [str(first.addresses[0])]


async def test_many_at_once_share_the_bridge_and_leave_nothing(lab: Any) -> None:
    driver: Provider = lab.driver(LISTEN)
    names = [f"podvm-many-{number}" for number in range(8)]
    made = await asyncio.gather(*(driver.create(lab.request(name)) for name in names))
    assert len({one.addresses for one in made}) == len(names)
    again = await asyncio.gather(*(driver.delete(one.id) for one in made[:4]), driver.create(lab.request(names[7])))
    assert again[-1] == made[7]
    for one in made[4:]:
        await lab.console(driver, one, "forwarder listens")
    await asyncio.gather(*(driver.delete(one.id) for one in made))
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert cgroups_of(lab) == []


async def test_delete_works_without_the_state_directory(lab: Any) -> None:
    driver: Provider = lab.driver(LISTEN)
    instance = await driver.create(lab.request())
    shutil.rmtree(lab.folder / "local")
    await driver.delete(instance.id)
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert cgroups_of(lab) == []
