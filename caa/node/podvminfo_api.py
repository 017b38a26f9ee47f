"""`podvminfo.PodVMInfo` for storage drivers: which instance a pod runs in."""

from collections.abc import Mapping

from caa.errors import InvalidInput
from caa.sandbox.service import SandboxService
from caa.wire.proto import podvminfo
from caa.wire.server import Call, Handler

SERVICE = "podvminfo.PodVMInfo"


class PodVMInfoApi:
    """The handler of `GetInfo`. The answer never holds an empty id (`reference/podvm.md` 2.6)."""

    def __init__(self, service: SandboxService) -> None:
        self._service = service

    def handlers(self) -> Mapping[str, Mapping[str, Handler]]:
        """For `caa.wire.server.Server`."""
        return {SERVICE: {"GetInfo": self.get_info}}

    async def get_info(self, request: podvminfo.GetInfoRequest, call: Call) -> podvminfo.GetInfoResponse:
        if not request.PodName:
            raise InvalidInput("GetInfo needs PodName, the request has none")
        instance = await self._service.wait_instance(
            request.PodName, request.PodNamespace, wait=request.Wait, deadline=call.deadline
        )
        return podvminfo.GetInfoResponse(VMID=instance)
