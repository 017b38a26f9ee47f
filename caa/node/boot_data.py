"""The user data of a pod VM, made from its record, the certificates and the settings; nothing of it is kept."""

import asyncio
from dataclasses import dataclass

from caa.errors import InvalidInput
from caa.model.network import IPNetwork
from caa.model.sandbox import PodSpec, Sandbox
from caa.sandbox.ports import Boot
from caa.userdata import initdata
from caa.userdata.budget import Budget
from caa.userdata.forwarder import ForwarderConfig, ServerTls
from caa.userdata.render import Parts, render
from caa.wire.certs import Certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSettings:
    """What an operator sets for every pod VM. `initdata` is plain TOML for pods that bring none, validated already;
    TLS fields are the profile of the forwarder's server."""

    initdata: str = ""
    scratch_space: bool = False
    external_net_via_podvm: bool = False
    allow_link_local: tuple[IPNetwork, ...] = ()
    tls_min_version: str = ""
    tls_cipher_suites: tuple[str, ...] = ()


def default_initdata(encoded: str) -> str:
    """The plain TOML of the setting INITDATA, "" for none; raises `InitdataError` naming the setting."""
    if not encoded.strip():
        return ""
    text = initdata.decode(encoded, initdata.SETTING)
    return initdata.parse(text, initdata.SETTING).text


class UserData:
    """`BootData`. Without `certificates` (--disable-tls) the forwarder gets none. `settings` may change at any time."""

    def __init__(self, certificates: Certificates | None, budget: Budget, *, settings: GuestSettings) -> None:
        self._certificates = certificates
        self._budget = budget
        self.settings = settings

    def current_ca(self) -> str:
        """The generation of the node's CA that the next pod VM will trust, "" where there are none."""
        return "" if self._certificates is None else self._certificates.current()

    async def validate(self, pod: PodSpec) -> None:
        """Refuse initdata that the guest would refuse; in a thread, a megabyte of TOML takes its time."""
        if pod.initdata:
            await asyncio.to_thread(initdata.parse, pod.initdata)

    async def render(self, sandbox: Sandbox) -> Boot:
        return await asyncio.to_thread(self._render, sandbox)

    def _render(self, sandbox: Sandbox) -> Boot:
        if sandbox.network is None or sandbox.tunnel is None:
            raise InvalidInput(f"the record of sandbox {sandbox.id} lacks its network or tunnel")
        config = ForwarderConfig(
            pod_name=sandbox.pod.pod_name,
            pod_namespace=sandbox.pod.pod_namespace,
            network=sandbox.network,
            tunnel=sandbox.tunnel,
            tls=self._server_tls(sandbox),
            external_net_via_podvm=self.settings.external_net_via_podvm,
            allow_link_local=self.settings.allow_link_local,
        )
        text = sandbox.pod.initdata or self.settings.initdata
        parts = Parts(forwarder=config, initdata=text, scratch_space=self.settings.scratch_space)
        return Boot(user_data=render(parts, self._budget), initdata=initdata.digest_in_guest(text))

    def _server_tls(self, sandbox: Sandbox) -> ServerTls:
        if self._certificates is None:
            return ServerTls()
        identity = self._certificates.server_identity(sandbox.instance_name, sandbox.ca)
        return ServerTls(
            client_ca=identity.client_ca,
            cert=identity.cert,
            key=identity.key,
            min_version=self.settings.tls_min_version,
            cipher_suites=self.settings.tls_cipher_suites,
        )
