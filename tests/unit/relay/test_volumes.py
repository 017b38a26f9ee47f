"""The annotation about volumes in a CreateContainer: which containers get it, what it says, what is left alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.datapath.edits import EditError, bytes_field
from caa.model.volume import Volume
from caa.relay import volumes
from caa.userdata.volumes import fields
from caa.wire.proto import agent
from podvm import attach, rewrites

VOLUMES = (
    Volume(source="/volumes/a/mount", disk="vol-0aaaaaaaa", fs_type="xfs", fs_group=2000),
    Volume(source="/volumes/b/mount", disk="vol-0bbbbbbbb", key="kbs:///default/keys/b"),
)
TOLD = tuple(zip((one.source for one in VOLUMES), fields(VOLUMES), strict=True))
KEY = volumes.ANNOTATION.decode()


def request(*mounts: tuple[str, str], **annotations: str) -> bytes:
    made = agent.CreateContainerRequest(container_id="c")
    made.OCI.Annotations["io.kubernetes.cri.container-name"] = "web"
    for name, value in annotations.items():
        made.OCI.Annotations[name.replace("CLOUD", KEY)] = value
    for destination, source in mounts:
        made.OCI.Mounts.add(destination=destination, source=source, type="bind", options=["rbind", "rw"])
    return made.SerializeToString()


def annotation(payload: bytes) -> dict[str, Any] | None:
    found = agent.CreateContainerRequest.FromString(payload)
    assert found.OCI.Annotations["io.kubernetes.cri.container-name"] == "web"
    assert found.container_id == "c"
    return json.loads(found.OCI.Annotations[KEY]) if KEY in found.OCI.Annotations else None


def test_the_annotation_is_the_references() -> None:
    """Names, and all values as texts (`CloudVolumeAnnotation`); `lun` is the place among the pod's volumes."""
    payload = volumes.annotated(request(("/data", "/volumes/b/mount")), TOLD)
    assert annotation(payload) == {
        "vol-1": {
            "mount_point": "/data",
            "fs_type": "ext4",
            "lun": "1",
            "disk_id": "vol-0bbbbbbbb",
            "encrypt_type": "luks2",
            "key_id": "kbs:///default/keys/b",
        }
    }


def test_each_container_hears_of_the_volumes_that_it_mounts() -> None:
    both = annotation(volumes.annotated(request(("/b", "/volumes/b/mount"), ("/a", "/volumes/a/mount")), TOLD))
    assert both is not None
    assert {name: one["mount_point"] for name, one in both.items()} == {"vol-0": "/a", "vol-1": "/b"}
    assert both["vol-0"]["fs_group"] == "2000"


@pytest.mark.parametrize("source", ["/volumes/a", "/volumes/a/mounted", "/volumes", "", "volumes/a/mount", "/x"])
def test_a_container_without_them_hears_nothing(source: str) -> None:
    plain = request(("/data", source))
    assert volumes.annotated(plain, TOLD) == plain


def test_one_volume_at_two_places() -> None:
    """The guest moves every mount that comes from a mount point, so the source stands for both."""
    payload = volumes.annotated(request(("/one", "/volumes/a/mount"), ("/two", "/volumes/a/mount/sub")), TOLD)
    assert annotation(payload)["vol-0"]["mount_point"] == "/volumes/a/mount"  # type: ignore[index]


@pytest.mark.parametrize("mounts", [[], [("/data", "/volumes/a/mount")]])
def test_an_annotation_of_the_pods_author_goes(mounts: list[tuple[str, str]]) -> None:
    """It would have the guest mount, or format, a disk of the author's choice."""
    payload = volumes.annotated(request(*mounts, CLOUD='{"vol-9":{"disk_id":"/dev/vda"}}'), TOLD)
    assert "/dev/vda" not in payload.decode("utf-8", "replace")
    assert (annotation(payload) or {}).keys() == ({"vol-0"} if mounts else set())


@given(st.text(max_size=40).filter(lambda text: "\0" not in text))
def test_any_destination_stays_json(destination: str) -> None:
    """It is the pod author's; what is quoted here is parsed in the guest."""
    found = annotation(volumes.annotated(request((destination, "/volumes/a/mount")), TOLD))
    assert found is not None
    assert found["vol-0"]["mount_point"] == destination


def test_the_guest_reads_what_node_and_relay_have_written() -> None:
    payload = volumes.annotated(request(("/a", "/volumes/a/mount"), ("/b", "/volumes/b/mount")), TOLD)
    found = attach.parse(rewrites.cloud_volumes(payload).decode())
    assert [(one.name, one.mount_point, one.fs_type, one.fs_group, one.key) for one in found] == [
        ("vol-0", "/a", "xfs", 2000, ""),
        ("vol-1", "/b", "ext4", None, "kbs:///default/keys/b"),
    ]
    assert [(one.disk.disk_id, one.disk.lun) for one in found] == [("vol-0aaaaaaaa", 0), ("vol-0bbbbbbbb", 1)]
    moved = rewrites.move_binds(payload, [(b"/a", b"/run/cloud-volumes/vol-0")])
    sources = [mount.source for mount in agent.CreateContainerRequest.FromString(moved).OCI.Mounts]
    assert sources == ["/run/cloud-volumes/vol-0", "/volumes/b/mount"]


def test_both_mounts_of_one_volume_are_moved_in_the_guest() -> None:
    payload = volumes.annotated(request(("/one", "/volumes/a/mount"), ("/two", "/volumes/a/mount/sub")), TOLD)
    (found,) = attach.parse(rewrites.cloud_volumes(payload).decode())
    moved = rewrites.move_binds(payload, [(found.mount_point.encode(), b"/run/cloud-volumes/vol-0")])
    sources = [mount.source for mount in agent.CreateContainerRequest.FromString(moved).OCI.Mounts]
    assert sources == ["/run/cloud-volumes/vol-0", "/run/cloud-volumes/vol-0/sub"]


def test_a_folder_of_a_volume_stays_one() -> None:
    """A subPath: the container must not see the rest of the volume."""
    payload = volumes.annotated(request(("/data", "/volumes/a/mount/sub")), TOLD)
    (found,) = attach.parse(rewrites.cloud_volumes(payload).decode())
    moved = rewrites.move_binds(payload, [(found.mount_point.encode(), b"/run/cloud-volumes/vol-0")])
    (mount,) = agent.CreateContainerRequest.FromString(moved).OCI.Mounts
    assert (mount.destination, mount.source) == ("/data", "/run/cloud-volumes/vol-0/sub")


def test_a_request_without_a_spec_is_the_agents_to_refuse() -> None:
    assert volumes.annotated(b"", TOLD) == b""


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(EditError):
        volumes.annotated(bytes_field(6, b"\xff\xff"), TOLD)
    mount = bytes_field(1, b"/\xff") + bytes_field(2, b"/volumes/a/mount")
    with pytest.raises(EditError, match="not UTF-8"):
        volumes.annotated(bytes_field(6, bytes_field(5, mount)), TOLD)
