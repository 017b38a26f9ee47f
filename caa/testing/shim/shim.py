"""The shim itself: from a sandbox request to a Ready pod, with what each kind does when that fails."""

import asyncio

from caa.errors import CaaError
from caa.testing.shim import requests
from caa.testing.shim.hypervisor_link import HypervisorLink
from caa.testing.shim.kinds import Habits, Kind, PodOptions, habits
from caa.testing.shim.link import AgentLink, Stopwatch, dial
from caa.testing.shim.pod import Pod


class Shim:
    """One shim process: it serves one pod at a time, so make one for each pod. `hypervisor` is the socket's path."""

    def __init__(self, hypervisor: str, kind: Kind = Kind.GO) -> None:
        self._path = hypervisor
        self._kind = kind

    async def start(self, options: PodOptions) -> Pod:
        """CreateVM, StartVM, the agent's start calls, the pause container.

        Raises what the failing call raised, after the StopVM that this kind sends then. A cancelled start ends as with
        a kubelet that gave up: the Go shim is killed, runtime-rs sends StopVM on the connection where StartVM waits.
        """
        own = habits(self._kind)
        watch = Stopwatch()
        hypervisor = HypervisorLink(self._path, own, watch=watch)
        pod = Pod(self._kind, options, hypervisor=hypervisor, watch=watch)
        try:
            path = await _start_vm(pod, hypervisor, own=own)
            await _begin(pod, path, own=own, watch=watch)
        finally:
            if not pod.ready:
                await hypervisor.close()
        return pod


async def _start_vm(pod: Pod, hypervisor: HypervisorLink, *, own: Habits) -> str:
    stops = int(own.stops_failed_create)
    try:
        path = await hypervisor.create(requests.create_vm(pod.options, pod.sandbox_id, habits=own))
        stops = 1
        await hypervisor.start(pod.sandbox_id)
    except CaaError:
        await hypervisor.stop(pod.sandbox_id, stops)
        raise
    except asyncio.CancelledError:
        await hypervisor.stop(pod.sandbox_id, int(own.stops_cancelled_start))
        raise
    return path


async def _begin(pod: Pod, path: str, *, own: Habits, watch: Stopwatch) -> None:
    try:
        client = await dial(path, own.dial_pause)
        idle = await dial(path, own.dial_pause) if own.idle_connection else None
        await pod.begin(AgentLink(client, own, watch=watch), idle)
    except BaseException:
        await pod.abandon()
        raise
