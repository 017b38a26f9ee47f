"""The connection by itself: opened late, opened again, and a daemon that hangs."""

import threading
import time
from typing import Any

import libvirt
import pytest

from caa.errors import CredentialsError, ProviderError
from caa.testing.libvirt_calls import Calls, Injected
from providers.libvirt import connection as module
from providers.libvirt.client import Host
from providers.libvirt.connection import Connection
from providers.libvirt.faults import ConnectionLost

URI = "test:///default"


def test_it_is_opened_when_it_is_needed_and_once() -> None:
    opened: list[str] = []

    def opener(uri: str) -> Any:
        opened.append(uri)
        return libvirt.open(uri)

    connection = Connection(URI, opener=opener)
    assert opened == []
    for _ in range(3):
        with connection.work() as conn:
            assert conn.getType() == "TEST"
    assert opened == [URI]
    connection.close()
    connection.close()
    with connection.work() as conn:
        assert conn.getType() == "TEST"
    assert opened == [URI, URI]
    connection.close()


def test_a_silent_daemon_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt's keep-alive, on each connection: without it a call to a host whose cable is cut never ends."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(libvirt.virConnect, "setKeepAlive", lambda _self, *pair: told.append(pair))
    calls = Calls()
    connection = Connection(URI, opener=calls.open)
    with connection.work():
        pass
    with pytest.raises(ConnectionLost):
        fail_and_cut(connection, calls)
    with connection.work():
        pass
    assert told == [(5, 3), (5, 3)]
    connection.close()


def fail_and_cut(connection: Connection, calls: Calls) -> None:
    with connection.work():
        calls.cut()
        raise Injected("anything")


def test_a_lost_one_is_opened_again() -> None:
    calls = Calls()
    connection = Connection(URI, opener=calls.open)
    with connection.work():
        pass
    with pytest.raises(ConnectionLost, match="was lost"):
        fail_and_cut(connection, calls)
    assert connection.generation == 1
    with connection.work() as conn:
        conn.getType()
    assert connection.generation == 2
    connection.close()


def test_errors_that_are_not_libvirt_s_pass() -> None:
    connection = Connection(URI)
    with pytest.raises(ZeroDivisionError), connection.work():
        raise ZeroDivisionError
    connection.close()


def test_there_is_no_daemon() -> None:
    connection = Connection("qemu:///system?socket=/nowhere/libvirt-sock")
    with pytest.raises(ConnectionLost, match=r"LIBVIRT_URI.*/nowhere/libvirt-sock"), connection.work():
        pass


@pytest.mark.parametrize("uri", ["nonsense:///system", "test:///nowhere.xml", "qemu:///nowhere?socket=/nowhere"])
def test_an_address_that_leads_nowhere_is_named(uri: str) -> None:
    with pytest.raises(ProviderError, match="LIBVIRT_URI"), Connection(uri).work():
        pass


def test_a_host_that_does_not_accept_us() -> None:
    def opener(uri: str) -> Any:
        raise Injected("Cannot recv data: Host key verification failed.: Connection reset by peer")

    with pytest.raises(CredentialsError), Connection(URI, opener=opener).work():
        pass


def test_a_daemon_that_hangs_as_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded; and when it comes to itself, the connection that was begun is the one that is used."""
    monkeypatch.setattr(module, "_OPEN_SECONDS", 0.2)
    release, opened = threading.Event(), []

    def opener(uri: str) -> Any:
        release.wait(10)
        opened.append(uri)
        return libvirt.open(uri)

    connection = Connection(URI, opener=opener)
    begin = time.monotonic()
    for _ in range(3):
        with pytest.raises(ConnectionLost, match="says nothing"), connection.work():
            pass
    assert time.monotonic() - begin < 5
    release.set()
    monkeypatch.setattr(module, "_OPEN_SECONDS", 10.0)
    with connection.work() as conn:
        conn.getType()
    assert opened == [URI]
    connection.close()


def test_events_tell_of_domains() -> None:
    heard: list[str] = []
    told = threading.Event()

    def watcher(uuid: str) -> None:
        heard.append(uuid)
        told.set()

    connection = Connection(URI)
    connection.watcher = watcher
    with connection.work() as conn:
        domain = conn.lookupByName("test")
        domain.destroy()
        assert told.wait(5)
        domain.create()
        assert heard[0] == domain.UUIDString()
    connection.close()


def test_kvm_that_does_not_work_is_found_by_each_of_several_pods() -> None:
    """They start at once: the second one finds that the first has chosen emulation already, and is made anew too."""
    host = Host(Connection(URI))
    assert host.without_kvm()
    assert host.without_kvm()
    assert not Host(Connection(URI), acceleration="kvm").without_kvm()
