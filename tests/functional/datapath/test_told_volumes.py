"""The relay tells the guest of a pod's volumes: in CreateContainer, over every kind of link, also after a hand-over."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from caa.datapath import frames
from caa.datapath.edits import bytes_field
from caa.wire.proto import agent as messages
from podvm import rewrites

OK = (0, "")
SOURCE = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pvc-1/mount"
TOLD = bytes_field(
    12, bytes_field(1, SOURCE.encode()) + bytes_field(2, b'{"fs_type":"xfs","lun":"0","disk_id":"pvc-1"}')
)
# What mounts volumes, in the place of the real one: it says that all are mounted.
CHILD = """
import json, sys
found = json.load(sys.stdin)
words = [word for name, one in found.items() for word in (one["mount_point"], "/run/cloud-volumes/" + name)]
sys.stdout.write("\\0".join(["ok", *words]))
"""
PROGRAM = (
    "import sys; sys.path.insert(0, {root!r}); from podvm import volumes; "
    f"volumes._ATTACH = {CHILD.replace('{', '{{').replace('}', '}}')!r}; "
    "from podvm.forwarder import main; sys.exit(main(sys.argv[1:]))"
)


def request(name: str, source: str = SOURCE, *, size: int = 0) -> bytes:
    made = messages.CreateContainerRequest(container_id=name)
    made.OCI.Annotations["filler"] = "x" * size
    made.OCI.Mounts.add(destination="/data", source=source, type="other")
    return made.SerializeToString()


def received(agent: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Each container that the agent was asked for: its name, its mount's source, the annotation."""
    asked = [
        messages.CreateContainerRequest.FromString(what)
        for *_, method, what in agent.seen
        if method == "CreateContainer"
    ]
    return [
        (one.container_id, one.OCI.Mounts[0].source, json.loads(one.OCI.Annotations.get(rewrites.CLOUD_VOLUMES, "{}")))
        for one in asked
    ]


SAID = {"vol-0": {"mount_point": "/data", "fs_type": "xfs", "lun": "0", "disk_id": "pvc-1"}}


def told(name: str) -> tuple[str, str, dict[str, Any]]:
    return name, "/run/cloud-volumes/vol-0", SAID


@pytest.fixture
def open_pod(start_guest: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr("podvm.forwarder._PROGRAM", PROGRAM)
    guest = start_guest(agent.path)

    def opened(relay: Any, told: bytes = TOLD) -> None:
        assert relay.ask("Open", guest.opening.payload() + told)[0] == OK

    return opened


@pytest.mark.parametrize("grace", ["300", "0"], ids=["session", "plain"])
def test_a_container_with_the_volume_and_one_without(
    start_relay: Any, open_pod: Any, shim: Any, agent: Any, grace: str
) -> None:
    relay = start_relay("--link-grace-seconds", grace)
    open_pod(relay)
    client = shim(relay.agent_socket())
    assert client.call("CreateContainer", request("with"))[0] == OK
    assert client.call("CreateContainer", request("without", "/elsewhere"))[0] == OK
    assert client.call("CreateContainer", request("large", size=1 << 20))[0] == OK
    assert client.call("Echo", b"x") == (OK, b"x")
    assert received(agent) == [told("with"), ("without", "/elsewhere", {}), told("large")]


def test_a_pod_without_volumes_passes_as_it_is(relay: Any, open_pod: Any, shim: Any, agent: Any) -> None:
    open_pod(relay, b"")
    assert shim(relay.agent_socket()).call("CreateContainer", request("c"))[0] == OK
    assert received(agent) == [("c", SOURCE, {})]


@pytest.mark.parametrize("grace", ["300", "0"], ids=["session", "plain"])
def test_a_successor_goes_on_telling(start_relay: Any, open_pod: Any, shim: Any, agent: Any, grace: str) -> None:
    """Also of a request of which the first relay has seen the beginning only."""
    extra = ("--link-grace-seconds", grace)
    old = start_relay(*extra)
    open_pod(old)
    client = shim(old.agent_socket())
    assert client.call("CreateContainer", request("a"))[0] == OK
    whole = frames.call(frames.AGENT, "CreateContainer", stream=3, payload=request("b", size=1000))
    client.sock.sendall(whole[:500])
    start_relay(*extra)
    assert old.process.child.wait(10) == 0
    client.sock.sendall(whole[500:])
    assert client.answer()[:2] == (3, OK)
    assert received(agent) == [told("a"), told("b")]


def test_a_node_that_has_lost_its_records_takes_nothing_away(
    start_relay: Any, open_pod: Any, shim: Any, agent: Any
) -> None:
    """It opens the link again, for new certificates, and knows no volumes; then another relay takes over."""
    old = start_relay()
    open_pod(old)
    open_pod(old, b"")
    client = shim(old.agent_socket())
    start_relay()
    assert old.process.child.wait(10) == 0
    assert client.call("CreateContainer", request("a"))[0] == OK
    assert received(agent) == [told("a")]


def test_a_link_that_is_up_already_learns_of_the_volumes(relay: Any, open_pod: Any, shim: Any, agent: Any) -> None:
    open_pod(relay, b"")
    open_pod(relay)
    assert shim(relay.agent_socket()).call("CreateContainer", request("a"))[0] == OK
    assert received(agent) == [told("a")]


def test_a_request_that_is_no_message_is_refused(relay: Any, open_pod: Any, shim: Any, agent: Any) -> None:
    open_pod(relay)
    client = shim(relay.agent_socket())
    (code, text), _ = client.call("CreateContainer", bytes_field(6, b"\xff\xff"))
    assert (code, "not a protobuf message" in text) == (3, True)
    assert client.call("Echo", b"x") == (OK, b"x")
    assert received(agent) == []
