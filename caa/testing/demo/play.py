"""One pod from CreateVM to StopVM, as its owner would see it: output, exec, stdin, the network, PodVMInfo."""

import asyncio
import hashlib
import secrets
import time
from asyncio.subprocess import PIPE
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caa.model.ids import SandboxId, instance_name
from caa.testing.demo import observe, world
from caa.testing.demo.clouds import Cloud
from caa.testing.demo.console import Watch, followed
from caa.testing.demo.daemons import Paths
from caa.testing.demo.report import Span
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.process import Process
from caa.testing.shim.shim import Shim
from caa.wire.client import connect
from caa.wire.proto import podvminfo

MEBIBYTES = 50
_PAGE = "hello from the pod VM"
_SERVE = (
    f"mkdir /www && echo {_PAGE} > /www/index.html"
    f" && dd if=/dev/urandom of=/www/big bs=1M count={MEBIBYTES} 2>/dev/null"
    " && sha256sum /www/big && exec httpd -f -v -p 80 -h /www"
)


class Unexpected(Exception):
    """The pod did not do what the demo expects; the text says what came instead."""


@dataclass
class Played:
    """What one pod showed."""

    spans: list[Span] = field(default_factory=list)
    exec: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass
class Guest:
    """A running pod with its web server, and what it has shown so far."""

    name: str
    address: str
    pod: Pod
    web: Process
    played: Played
    instance_name: str
    machine: str  # what its pod VM is called on this node


async def begin(paths: Paths, number: int, *, kind: Kind, cloud: Cloud) -> Guest:
    """Make the pod's namespace as a CNI plugin would, start the pod and its web server."""
    name, address = f"pod{number}", f"{world.SUBNET}.{number + 10}"
    await asyncio.to_thread(world.attach, name, address)
    sandbox = SandboxId(secrets.token_hex(32))
    instance = instance_name(name, sandbox)
    began, wall, monotonic = time.perf_counter(), time.time(), time.monotonic()
    options = PodOptions(name=name, namespace="demo", netns=str(world.NETNS / name), sandbox_id=sandbox)
    async with _watched(cloud, instance, began=monotonic) as watch:
        pod = await Shim(str(paths.hypervisor), kind).start(options)
    web = await pod.container("web", ["/bin/sh", "-c", _SERVE])
    played = Played(timings_ms={"start": _since(began)})
    machine = await asyncio.to_thread(cloud.machine, instance)
    guest = Guest(name, address, pod, web, played, instance, machine)
    log = await _text(paths.log("node"))
    inner = observe.node_steps(log, sandbox=sandbox, began=wall)
    if watch is not None:
        started = observe.vm_started(log, sandbox=sandbox, began=wall)
        inner += observe.vm_milestones(watch.text, started=started, clock_began=watch.clock_began)
        played.network["user_data_from"] = observe.source_of_user_data(watch.text)
    for console in await asyncio.to_thread(lambda: list(paths.vms.glob(f"*/{machine}/console*"))):
        said = await _text(console)
        inner += [*observe.cloud_milestones(said, monotonic), *observe.guest_milestones(said, monotonic)]
        played.network["user_data_from"] = observe.source_of_user_data(said)
    calls = [Span(one.name, one.began_ms, one.took_ms) for one in pod.timings]
    played.spans = sorted([*calls, *inner], key=lambda span: span.start_ms)
    return guest


def _watched(cloud: Cloud, instance: str, *, began: float) -> AbstractAsyncContextManager[Watch | None]:
    """The console of a real VM from now on; None where the pod VM is none."""
    return nullcontext() if cloud.console is None else followed(cloud.console(instance), since=began)


async def _text(path: Path) -> str:
    return await asyncio.to_thread(path.read_text, errors="replace")


async def use(guest: Guest, paths: Paths, *, cloud: Cloud) -> None:
    """Everything an owner does with a running pod. Raises `Unexpected` or what a call raised."""
    await _second_container(guest)
    await _exec(guest)
    await _network(guest)
    guest.played.network["instance"] = guest.instance_name
    guest.played.network["instance_id"] = await _instance(guest, paths, cloud=cloud)


async def end(guest: Guest) -> None:
    """Stop the pod as the shim does, then take its namespace as the CNI plugin does."""
    began = time.perf_counter()
    try:
        await guest.pod.stop()
    finally:
        guest.played.timings_ms["stop"] = _since(began)
        await asyncio.to_thread(world.detach, guest.name)


async def _second_container(guest: Guest) -> None:
    process = await guest.pod.container("greeter", ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])
    result = await process.result()
    found = (result.stdout, result.stderr, result.exit_code)
    _expect("the second container's stdout, stderr and exit code", found=found, wanted=(b"out\n", b"err\n", 3))


async def _exec(guest: Guest) -> None:
    began = time.perf_counter()
    result = await guest.pod.exec(guest.web, ["/bin/sh", "-c", "wc -c; exit 7"], stdin=b"x" * 100_000)
    guest.played.timings_ms["exec"] = _since(began)
    _expect("exec with stdin", found=(result.stdout.strip(), result.exit_code), wanted=(b"100000", 7))
    hostname = await guest.pod.exec(guest.web, ["/bin/cat", "/etc/hostname"])
    guest.played.exec = {"stdin_bytes": 100_000, "exit_code": 7, "hostname": hostname.stdout.decode().strip()}


async def _network(guest: Guest) -> None:
    """From another pod's place on the bridge, through the tunnel, to the pod's own address."""
    await guest.web.output(b"/www/big\n", timeout=60)
    wanted = bytes(guest.web.stdout).split()[0].decode()
    page = await _fetch(guest.address, "index.html")
    _expect("the page", found=page.decode().strip(), wanted=_PAGE)
    began = time.perf_counter()
    big = await _fetch(guest.address, "big")
    seconds = time.perf_counter() - began
    _expect("the file's checksum", found=hashlib.sha256(big).hexdigest(), wanted=wanted)
    guest.played.network |= {
        "address": guest.address,
        "page": page.decode().strip(),
        "copied_mib": len(big) >> 20,
        "sha256": wanted,
        "mib_per_s": round((len(big) >> 20) / seconds, 1),
    }


async def _fetch(address: str, path: str) -> bytes:
    """Over HTTP from the client's namespace; tried for 10 s, since the server may still be starting."""
    argv = world.in_netns(world.CLIENT, "busybox", "wget", "-q", "-O", "-", f"http://{address}/{path}")
    end = time.monotonic() + 10
    while True:
        process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=PIPE)
        try:
            async with asyncio.timeout(30):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return out
        if time.monotonic() > end:
            raise Unexpected(f"http://{address}/{path} did not answer: {err.decode(errors='replace').strip()}")
        await asyncio.sleep(0.05)


async def _instance(guest: Guest, paths: Paths, *, cloud: Cloud) -> str:
    """Ask PodVMInfo which pod VM is ours, as a CSI driver does."""
    client = await connect(str(paths.hypervisor))
    try:
        request = podvminfo.GetInfoRequest(PodName=guest.name, PodNamespace="demo", Wait=True)
        answer = await client.call("podvminfo.PodVMInfo/GetInfo", request, timeout=10)
    finally:
        await client.close()
    wanted = await asyncio.to_thread(cloud.identity, guest.instance_name)
    _expect("PodVMInfo's answer", found=answer.VMID, wanted=wanted)
    return wanted


def _expect(what: str, *, found: object, wanted: object) -> None:
    if found != wanted:
        raise Unexpected(f"{what}: {found!r} instead of {wanted!r}")


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
