"""Addresses from one source after the other: leases, the guest's agent, the host's ARP table; each may fail alone."""

from typing import Any

import pytest

from caa.testing.libvirt_calls import Injected
from providers.libvirt import sight
from providers.libvirt.faults import NO_DOMAIN

LEASE, AGENT, ARP = 0, 1, 2
MAC, OTHER = "52:54:00:00:00:01", "0a:58:0a:32:00:05"
XML = f"<domain><devices><interface><mac address='{MAC}'/></interface></devices></domain>"
BROKEN = Injected("internal error: wrong nlmsg len")  # libvirt 9.0 with Linux 6.18


def interface(*addresses: str, mac: str = MAC) -> dict[str, Any]:
    return {"hwaddr": mac, "addrs": [{"addr": one, "prefix": 24, "type": 0} for one in addresses]}


class Domain:
    """A running domain; `sources` by libvirt's number: interfaces by name, or an error."""

    def __init__(self, sources: dict[int, Any], state: tuple[int, int] = (1, 1)) -> None:
        self.sources = sources
        self.asked: list[int] = []
        self._state = state

    def isActive(self) -> bool:
        return True

    def state(self, flags: int) -> tuple[int, int]:
        return self._state

    def XMLDesc(self, flags: int) -> str:
        return XML

    def interfaceAddresses(self, source: int, flags: int) -> Any:
        self.asked.append(source)
        found = self.sources.get(source)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.mark.parametrize(
    ("sources", "expected", "asked"),
    [
        ({LEASE: {"vnet0": interface("192.0.2.1")}}, ["192.0.2.1"], [LEASE]),
        ({AGENT: {"eth0": interface("192.0.2.2")}}, ["192.0.2.2"], [LEASE, AGENT]),
        ({AGENT: Injected("no agent"), ARP: {"vnet0": interface("192.0.2.3")}}, ["192.0.2.3"], [LEASE, AGENT, ARP]),
        ({LEASE: BROKEN, AGENT: BROKEN, ARP: BROKEN}, [], [LEASE, AGENT, ARP]),
        ({LEASE: {}, AGENT: {"lo": interface("127.0.0.1", mac="00:00:00:00:00:00")}}, [], [LEASE, AGENT, ARP]),
        ({LEASE: {"vnet0": {"hwaddr": MAC, "addrs": None}}}, [], [LEASE, AGENT, ARP]),
    ],
)
def test_sources_in_turn(sources: dict[int, Any], expected: list[str], asked: list[int]) -> None:
    domain = Domain(sources)
    look = sight.look(lambda: domain)
    assert [str(one) for one in look.addresses] == expected
    assert domain.asked == asked
    assert bool(look.tried) == (not expected)


def test_an_agent_tells_of_tunnels_and_pods_too() -> None:
    """The pod's own address is not the pod VM's: a node that dialled it would reach the pod, or another one."""
    told = {"vxlan0": interface("10.50.0.5", mac=OTHER), "eth0": interface("192.0.2.2", "fe80::1", mac=MAC.upper())}
    assert [str(one) for one in sight.look(lambda: Domain({AGENT: told})).addresses] == ["192.0.2.2"]


def test_what_was_tried() -> None:
    look = sight.look(lambda: Domain({AGENT: Injected("agent is not connected"), ARP: BROKEN}))
    assert look.tried == (
        "DHCP leases: none; guest agent: agent is not connected; ARP table: internal error: wrong nlmsg len"
    )


def test_a_guest_that_stopped_because_the_disk_is_full() -> None:
    assert sight.look(lambda: Domain({}, state=(3, 5))).no_room
    assert not sight.look(lambda: Domain({}, state=(3, 1))).no_room


def test_one_that_vanishes_meanwhile() -> None:
    gone = Injected("no domain", NO_DOMAIN)
    assert sight.look(lambda: Domain({LEASE: gone})) == sight.Look(active=False)

    def lookup() -> Any:
        raise gone

    assert sight.look(lookup) == sight.Look(active=False)
    assert sight.found(lookup) is None
