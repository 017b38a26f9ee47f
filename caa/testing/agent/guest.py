"""What the agent knows of its guest: details, interfaces, routes, metrics, volumes."""

import asyncio
import json
import os
import resource
import time
from typing import Any

from caa.testing.agent.answers import error
from caa.wire.proto import agent

VERSION = "4.1.0"
API_VERSION = "0.0.1"
MEMORY_BLOCK = 128 * 1024 * 1024
STORAGE_HANDLERS = (
    "ephemeral watchable-bind local image_guest_pull erofs.multi-layer overlayfs blk mmioblk scsi nvdimm virtio-fs"
)


def details(request: agent.GuestDetailsRequest) -> agent.GuestDetailsResponse:
    """As recorded, so that a shim decides as with the real agent (it looks at `extra_features`)."""
    return agent.GuestDetailsResponse(
        mem_block_size_bytes=MEMORY_BLOCK if request.mem_block_size else 0,
        agent_details=agent.AgentDetails(
            version=VERSION,
            storage_handlers=STORAGE_HANDLERS.split(),
            supports_seccomp=True,
            extra_features=["agent-policy", "seccomp"],
        ),
    )


async def interfaces() -> agent.Interfaces:
    """The links of the agent's own network namespace, as the real one lists them."""
    return agent.Interfaces(Interfaces=[_interface(link) for link in await _ip("address")])


async def routes() -> agent.Routes:
    """Its routes of both families."""
    found = [(agent.v4, route) for route in await _ip("-4", "route")]
    found += [(agent.v6, route) for route in await _ip("-6", "route")]
    return agent.Routes(Routes=[_route(family, route) for family, route in found])


def metrics() -> agent.Metrics:
    """A few of the real agent's names in Prometheus' text format."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    values = {
        "kata_agent_process_cpu_seconds_total": usage.ru_utime + usage.ru_stime,
        "kata_agent_total_rss": float(usage.ru_maxrss * 1024),
        "kata_agent_total_time": time.process_time(),
    }
    return agent.Metrics(metrics="".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in values.items()))


def volume(request: agent.VolumeStatsRequest) -> agent.VolumeStatsResponse:
    """Bytes and inodes of the file system at a path."""
    try:
        stat = os.statvfs(request.volume_guest_path)
    except OSError as problem:
        raise error(13, f"{problem.strerror}: {request.volume_guest_path}") from problem
    return agent.VolumeStatsResponse(
        usage=[
            agent.VolumeUsage(
                unit=agent.VolumeUsage.BYTES,
                total=stat.f_blocks * stat.f_frsize,
                available=stat.f_bavail * stat.f_frsize,
                used=(stat.f_blocks - stat.f_bfree) * stat.f_frsize,
            ),
            agent.VolumeUsage(
                unit=agent.VolumeUsage.INODES,
                total=stat.f_files,
                available=stat.f_favail,
                used=stat.f_files - stat.f_ffree,
            ),
        ],
        volume_condition=agent.VolumeCondition(),
    )


async def _ip(*command: str) -> list[dict[str, Any]]:
    child = await asyncio.create_subprocess_exec("ip", "-json", *command, stdout=asyncio.subprocess.PIPE)
    output, _ = await child.communicate()
    return list(json.loads(output or b"[]"))


def _interface(link: dict[str, Any]) -> agent.Interface:
    addresses = [
        agent.IPAddress(
            family=agent.v4 if address["family"] == "inet" else agent.v6,
            address=address["local"],
            mask=str(address["prefixlen"]),
        )
        for address in link["addr_info"]
    ]
    return agent.Interface(name=link["ifname"], IPAddresses=addresses, mtu=link["mtu"], hwAddr=link.get("address", ""))


def _route(family: agent.IPFamily.ValueType, route: dict[str, Any]) -> agent.Route:
    dest = route["dst"]
    return agent.Route(
        dest="" if dest == "default" else dest,
        gateway=route.get("gateway", ""),
        device=route.get("dev", ""),
        source=route.get("prefsrc", ""),
        scope=253 if route.get("scope") == "link" else 0,
        family=family,
    )
