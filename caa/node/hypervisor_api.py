"""`hypervisor.Hypervisor` for the Kata shims: messages become nouns, nouns go to the sandbox service."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from caa.logs import Lossy
from caa.model.ids import SandboxId, sandbox_id
from caa.model.pod_annotations import pod_spec
from caa.model.sandbox import PodSpec
from caa.node.stops import StopFiles
from caa.sandbox.service import SandboxService
from caa.wire.proto import hypervisor
from caa.wire.server import Call, Handler

SERVICE = "hypervisor.Hypervisor"
VERSION = "0.0.0"  # what the reference answers; runtime-rs asks every 5 min and looks only at success

Announce = Callable[[SandboxId, PodSpec], None]


class HypervisorApi:
    """The handlers. `announce` is told of every sandbox at CreateVM."""

    def __init__(self, service: SandboxService, stops: StopFiles, *, announce: Announce) -> None:
        self._service = service
        self._stops = stops
        self._announce = announce

    def handlers(self) -> Mapping[str, Mapping[str, Handler]]:
        """For `caa.wire.server.Server`."""
        return {
            SERVICE: {
                "CreateVM": self.create_vm,
                "StartVM": self.start_vm,
                "StopVM": self.stop_vm,
                "Version": self.version,
            }
        }

    async def create_vm(self, request: hypervisor.CreateVMRequest, call: Call) -> hypervisor.CreateVMResponse:
        sandbox = sandbox_id(request.id)
        pod = pod_spec(dict(request.annotations), request.networkNamespacePath)
        self._announce(sandbox, pod)
        if self._stops.has(sandbox):  # of an earlier life of this id: it must not end the new one
            await self._service.stop(sandbox)
            self._stops.remove(sandbox)
        path = await self._service.create(sandbox, pod, deadline=call.deadline)
        return hypervisor.CreateVMResponse(agentSocketPath=path)

    async def start_vm(self, request: hypervisor.StartVMRequest, call: Call) -> hypervisor.StartVMResponse:
        await self._service.start(sandbox_id(request.id), call.deadline)
        return hypervisor.StartVMResponse()

    async def stop_vm(self, request: hypervisor.StopVMRequest, call: Call) -> hypervisor.StopVMResponse:  # noqa: ARG002
        sandbox = sandbox_id(request.id)
        await self._service.stop(sandbox)
        self._stops.settle(sandbox)
        return hypervisor.StopVMResponse()

    async def version(self, request: hypervisor.VersionRequest, call: Call) -> hypervisor.VersionResponse:  # noqa: ARG002
        return hypervisor.VersionResponse(version=VERSION)


def announced(sandbox: SandboxId, pod: PodSpec, *, now: time.struct_time) -> str:
    """The line by which operators' tests find a pod's VM, in the form of Go's log package
    (`reference/user-pains.md` 5.0)."""
    stamp = time.strftime("%Y/%m/%d %H:%M:%S", now)
    return (
        f"{stamp} [adaptor/cloud] create a sandbox {sandbox} for pod {pod.pod_name} "
        f"in namespace {pod.pod_namespace} (netns: {pod.netns})"
    )


def announce_on(stream: TextIO = sys.stderr) -> Announce:
    """Write the line of every sandbox to `stream`, whatever the log's format is."""

    lossy = Lossy(stream)

    def announce(sandbox: SandboxId, pod: PodSpec) -> None:
        lossy.write(announced(sandbox, pod, now=time.localtime()) + "\n")

    return announce
