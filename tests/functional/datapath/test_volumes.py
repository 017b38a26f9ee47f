"""A container with volumes: its CreateContainer waits for them, and everything else of the pod goes on meanwhile."""

import time
from pathlib import Path
from typing import Any

import pytest

from caa.wire.proto import agent as messages
from podvm import forwarder, rewrites

# What mounts volumes, in the place of the real one: it takes its time and says what the annotation says.
SLOW = 'import sys, time; text = sys.stdin.read(); time.sleep(1.0); sys.stdout.write(text.replace("|", chr(0)))'


def request(name: str, annotation: str) -> bytes:
    made = messages.CreateContainerRequest(container_id=name)
    made.OCI.Mounts.add(destination="/data", source="/run/kata-containers/shared/data", type="other")
    made.OCI.Annotations[rewrites.CLOUD_VOLUMES] = annotation
    return made.SerializeToString()


@pytest.fixture
def pod(start_guest: Any, agent: Any, relay: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def start(child: str = SLOW) -> Any:
        monkeypatch.setattr("podvm.forwarder._PROGRAM", _with_child(child))
        guest = start_guest(agent.path)
        assert relay.ask("Open", guest.opening.payload())[0] == (0, "")
        return guest

    return start


def _with_child(child: str) -> str:
    return (
        "import sys; sys.path.insert(0, {root!r}); from podvm import volumes; "
        f"volumes._ATTACH = {child!r}; "
        "from podvm.forwarder import main; sys.exit(main(sys.argv[1:]))"
    )


def source(agent: Any) -> str:
    (payload,) = [payload for *_, method, payload in agent.seen if method == "CreateContainer"]
    found: str = messages.CreateContainerRequest.FromString(payload).OCI.Mounts[0].source
    return found


def test_other_calls_go_on_while_a_disk_is_formatted(pod: Any, agent: Any, relay: Any, shim: Any) -> None:
    pod()
    client = shim(relay.agent_socket())
    assert client.call("Echo", b"before")[1] == b"before"
    began = time.monotonic()
    held = client.send("CreateContainer", request("c", "ok|/data|/run/cloud-volumes/vol"))
    for number in range(20):
        assert client.call("Echo", b"%d" % number)[1] == b"%d" % number
    assert time.monotonic() - began < 0.8  # 20 calls have passed it
    stream, status, _ = client.answer()
    assert (stream, status) == (held, (0, ""))
    assert time.monotonic() - began > 0.9
    assert source(agent) == "/run/cloud-volumes/vol"
    # The agent takes growing ids only, and has taken all of them; ids stay the shim's own.
    assert client.call("Echo", b"after")[1] == b"after"


def test_two_containers_at_once_and_a_second_client(pod: Any, agent: Any, relay: Any, shim: Any) -> None:
    pod()
    one, two = shim(relay.agent_socket()), shim(relay.agent_socket())
    first = one.send("CreateContainer", request("a", "ok|/data|/run/cloud-volumes/a"))
    second = one.send("CreateContainer", request("b", "ok|/data|/run/cloud-volumes/b"))
    assert two.call("Echo", b"x")[1] == b"x"
    assert {one.answer()[0], one.answer()[0]} == {first, second}
    assert len([1 for *_, method, _ in agent.seen if method == "CreateContainer"]) == 2


@pytest.mark.parametrize(
    ("child", "annotation", "text"),
    [
        (SLOW, "error|volume vol: the disk holds ext4", "volume vol: the disk holds ext4"),
        ("raise SystemExit(3)", "{}", "ended early, see the pod VM's console"),
        (SLOW, "x" * 40_000, "longer than 32768 bytes"),
    ],
)
def test_a_volume_that_cannot_be_had_is_the_containers_answer(
    pod: Any, agent: Any, relay: Any, shim: Any, *, child: str, annotation: str, text: str
) -> None:
    pod(child)
    client = shim(relay.agent_socket())
    status, _ = client.call("CreateContainer", request("c", annotation))
    assert status[0] == 13
    assert text in status[1]
    assert agent.seen == []
    assert client.call("Echo", b"x")[1] == b"x"


def test_a_shim_that_is_gone_leaves_nothing(pod: Any, agent: Any, relay: Any, shim: Any, until: Any) -> None:
    guest = pod()
    client = shim(relay.agent_socket())
    client.send("CreateContainer", request("c", "ok|/data|/run/cloud-volumes/vol"))
    time.sleep(0.2)
    assert relay.close() == (0, "")
    children = Path(f"/proc/{guest.process.pid}/task/{guest.process.pid}/children")
    until(lambda: not children.read_text().strip(), "the end of the child")
    assert agent.seen == []


# A mount namespace with two volumes, one inside the other, and then the forwarder in the shell's place.
_MOUNTED = (
    "mount -t tmpfs tmpfs /run && cd /run && for each in a a/b; do mkdir -p cloud-volumes/$each "
    '&& mount -t tmpfs tmpfs /run/cloud-volumes/$each || exit 9; done; exec "$0" "$@"'
)


@pytest.mark.root
def test_volumes_are_unmounted_when_the_sandbox_ends(
    start_guest: Any, agent: Any, relay: Any, shim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = forwarder.command
    line = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", _MOUNTED]
    monkeypatch.setattr(forwarder, "command", lambda *flags: [*line, *real(*flags)])
    guest = start_guest(agent.path)
    table = Path(f"/proc/{guest.process.pid}/mountinfo")
    assert table.read_text().count(" /run/cloud-volumes/a") == 2
    assert relay.ask("Open", guest.opening.payload())[0] == (0, "")
    assert shim(relay.agent_socket()).call("DestroySandbox")[0] == (0, "")
    assert " /run/cloud-volumes/a" not in table.read_text()


_FULL = (
    "mount -t tmpfs tmpfs /run && mkdir -p /run/kata-containers/image "
    "&& mount -t tmpfs -o size=8m tmpfs /run/kata-containers/image "
    '&& (head -c 9000000 /dev/zero > /run/kata-containers/image/layer; exec "$0" "$@")'
)


@pytest.mark.root
def test_a_pod_vm_without_room_says_so_in_words(
    start_guest: Any, agent: Any, relay: Any, shim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place where images are unpacked is really full: head ends with ENOSPC."""
    real = forwarder.command
    line = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", _FULL]
    monkeypatch.setattr(forwarder, "command", lambda *flags: [*line, *real(*flags)])
    guest = start_guest(agent.path)
    assert "No space left on device" in guest.process.text()
    assert relay.ask("Open", guest.opening.payload())[0] == (0, "")
    status, _ = shim(relay.agent_socket()).call("CreateContainer", request("c", ""))
    assert status[0] == 8
    assert (
        "no room left for images: 0 of 8 MiB are free at /run/kata-containers/image; give it more memory" in status[1]
    )
    assert "ENABLE_SCRATCH_SPACE with a larger ROOT_VOLUME_SIZE" in status[1]
    assert agent.seen == []
