"""apf.json, what the forwarder in the pod VM has to know: written on the worker, read in the guest. Pure.

Field names and formats are the reference's (`reference/podvm.md` 2.1). What a reference forwarder would misread goes
into keys of our own, which it ignores: further addresses, routes of the other address family or of another table.
"""

import json
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from typing import Any

from caa.errors import InvalidInput
from caa.model.network import IPInterface, IPNetwork, Neighbour, PodNetwork, Route, Tunnel
from caa.userdata.fields import Fields

MAX_SIZE = 1024 * 1024  # bytes; a document of ours has about 3 KiB
MAIN_TABLE = 254  # RT_TABLE_MAIN
MIN_VERSIONS = ("", "VersionTLS12", "VersionTLS13")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What the forwarder's TLS server needs: PEM texts and the operator's profile, "" where the image has its own."""

    client_ca: str = ""
    cert: str = ""
    key: str = field(default="", repr=False)
    min_version: str = ""
    cipher_suites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderConfig:
    """The content of apf.json: who the pod is, its network, the tunnel to the worker, the TLS server."""

    pod_name: str
    pod_namespace: str
    network: PodNetwork
    tunnel: Tunnel
    tls: ServerTls = field(default_factory=ServerTls)
    dedicated: bool = False
    external_net_via_podvm: bool = False
    allow_link_local: tuple[IPNetwork, ...] = ()  # where containers may go although it is a metadata service's place


def render(config: ForwarderConfig) -> str:
    """The JSON text, indented by four blanks; empty TLS fields are left out, as the reference does."""
    tls = config.tls
    document: dict[str, Any] = {
        "pod-network": _network(config),
        "pod-namespace": config.pod_namespace,
        "pod-name": config.pod_name,
    }
    optional = {
        "tls-server-key": tls.key,
        "tls-server-cert": tls.cert,
        "tls-client-ca": tls.client_ca,
        "tls-min-version": tls.min_version,
        "tls-cipher-suites": list(tls.cipher_suites),
        "allow-link-local": [str(one) for one in config.allow_link_local],
    }
    return json.dumps(document | {key: value for key, value in optional.items() if value}, indent=4)


def parse(text: str) -> ForwarderConfig:
    """Read a document of ours or of the reference; it comes from outside the VM, so every field is checked.

    Raises `InvalidInput`, which names the field and never its content.
    """
    fields = Fields(_object(text), "apf.json")
    network = fields.part("pod-network")
    return ForwarderConfig(
        pod_name=fields.text("pod-name"),
        pod_namespace=fields.text("pod-namespace"),
        network=_parse_network(network),
        tunnel=_parse_tunnel(network),
        tls=_parse_tls(fields),
        dedicated=network.flag("dedicated"),
        external_net_via_podvm=network.flag("external-net-via-pod-vm"),
        allow_link_local=tuple(
            fields.value("allow-link-local", _network_of, text=text) for text in fields.texts("allow-link-local")
        ),
    )


def _network(config: ForwarderConfig) -> dict[str, Any]:
    network, tunnel = config.network, config.tunnel
    first = _main_address(network)
    known, extra = _split(network.routes, first.version)
    near, far = _split_neighbours(network.neighbours, first.version)
    document: dict[str, Any] = {
        "podip": str(first),
        "pod-hw-addr": network.hwaddr,
        "interface": network.interface,
        "worker-node-ip": str(tunnel.worker),
        "tunnel-type": tunnel.kind,
        "routes": [_route(route) for route in known],
        "neighbors": [_neighbour(neighbour) for neighbour in near],
        "mtu": tunnel.mtu,
        "index": tunnel.index,
        "vxlan-port": tunnel.port,
        "vxlan-id": tunnel.vni,
        "dedicated": config.dedicated,
        "external-net-via-pod-vm": config.external_net_via_podvm,
    }
    ours = {
        "podips": [str(address) for address in network.addresses] if len(network.addresses) > 1 else [],
        "extra-routes": [_route(route) for route in extra],
        "extra-neighbors": [_neighbour(neighbour) for neighbour in far],
        "pod-mtu": network.mtu if network.mtu != tunnel.mtu else 0,
    }
    return document | {key: value for key, value in ours.items() if value}


def _main_address(network: PodNetwork) -> IPInterface:
    """The one address that a reference forwarder takes: the first of IPv4, else the first."""
    if not network.addresses:
        raise InvalidInput(f"the pod's interface {network.interface} has no address")
    return next((address for address in network.addresses if address.version == 4), network.addresses[0])


def _split(routes: tuple[Route, ...], version: int) -> tuple[list[Route], list[Route]]:
    known = [route for route in routes if route.destination.version == version and route.table == MAIN_TABLE]
    return known, [route for route in routes if route not in known]


def _split_neighbours(entries: tuple[Neighbour, ...], version: int) -> tuple[list[Neighbour], list[Neighbour]]:
    known = [entry for entry in entries if entry.address.version == version]
    return known, [entry for entry in entries if entry not in known]


def _route(route: Route) -> dict[str, Any]:
    document: dict[str, Any] = {
        "dst": str(route.destination),
        "gw": str(route.gateway or ""),
        "dev": route.device,
        "protocol": route.protocol,
        "scope": route.scope,
    }
    ours = {
        "src": str(route.source or ""),
        "metric": route.metric,
        "table": route.table if route.table != MAIN_TABLE else 0,
        "onlink": route.onlink,
    }
    return document | {key: value for key, value in ours.items() if value}


def _neighbour(entry: Neighbour) -> dict[str, Any]:
    return {"ip": str(entry.address), "hw-addr": entry.lladdr, "dev": entry.device, "state": entry.state}


def _object(text: str) -> dict[str, Any]:
    if len(text) > MAX_SIZE:
        raise InvalidInput(f"apf.json has {len(text)} characters, allowed are {MAX_SIZE}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("apf.json is not JSON") from None
    if not isinstance(document, dict):
        raise InvalidInput("apf.json is not a JSON object")
    return document


def _parse_network(fields: Fields) -> PodNetwork:
    addresses = tuple(fields.value(key, ip_interface, text=text) for key, text in _address_texts(fields))
    routes = (*fields.parts("routes"), *fields.parts("extra-routes"))
    entries = (*fields.parts("neighbors"), *fields.parts("extra-neighbors"))
    return PodNetwork(
        interface=fields.interface("interface"),
        hwaddr=fields.mac("pod-hw-addr"),
        mtu=fields.number("pod-mtu", high=65535) or fields.number("mtu", high=65535),
        addresses=addresses,
        routes=tuple(_parse_route(route, addresses[0].version) for route in routes),
        neighbours=tuple(_parse_neighbour(entry) for entry in entries),
    )


def _address_texts(fields: Fields) -> list[tuple[str, str]]:
    several = fields.texts("podips")
    return [("podips", text) for text in several] or [("podip", fields.text("podip"))]


def _parse_tunnel(fields: Fields) -> Tunnel:
    worker = fields.value("worker-node-ip", ip_interface, text=fields.text("worker-node-ip"))
    return Tunnel(
        kind=fields.text("tunnel-type"),
        index=fields.number("index"),
        vni=fields.number("vxlan-id", high=2**24 - 1),
        port=fields.number("vxlan-port", high=65535),
        worker=worker,
        mtu=fields.number("mtu", high=65535),
    )


def _parse_route(fields: Fields, version: int) -> Route:
    default = "0.0.0.0/0" if version == 4 else "::/0"
    return Route(
        destination=fields.value("dst", _network_of, text=fields.text("dst") or default),
        gateway=fields.address("gw"),
        device=fields.interface("dev", optional=True),
        source=fields.address("src"),
        protocol=fields.number("protocol", high=255),
        scope=fields.number("scope", high=255),
        table=fields.number("table") or MAIN_TABLE,
        metric=fields.number("metric"),
        onlink=fields.flag("onlink"),
    )


def _network_of(text: str) -> IPNetwork:
    return ip_network(text, strict=False)


def _parse_neighbour(fields: Fields) -> Neighbour:
    address = fields.address("ip")
    if address is None:
        raise fields.wrong("ip", "an IP address")
    return Neighbour(
        address=address,
        lladdr=fields.mac("hw-addr"),
        device=fields.interface("dev", optional=True),
        state=fields.number("state", high=0xFFFF),
    )


def _parse_tls(fields: Fields) -> ServerTls:
    version = fields.text("tls-min-version")
    if version not in MIN_VERSIONS:
        raise fields.wrong("tls-min-version", "VersionTLS12 or VersionTLS13")
    return ServerTls(
        client_ca=fields.text("tls-client-ca"),
        cert=fields.text("tls-server-cert"),
        key=fields.text("tls-server-key"),
        min_version=version,
        cipher_suites=tuple(fields.texts("tls-cipher-suites")),
    )
