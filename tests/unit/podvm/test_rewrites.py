"""The guest's edits, with the protobuf runtime as the judge of what changed."""

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from caa.datapath import edits
from caa.wire.proto import agent
from podvm import rewrites

UNKNOWN = edits.bytes_field(900, b"from a newer Kata") + edits.varint_field(901, 7)


def create(namespaces: list[tuple[str, str]], mounts: list[tuple[str, str, list[str]]] | None = None) -> bytes:
    request = agent.CreateContainerRequest(container_id="c1", exec_id="c1", sandbox_pidns=True)
    request.OCI.Version = "1.2.0"
    request.OCI.Annotations["a"] = "b"
    request.OCI.Linux.CgroupsPath = "/cg"
    for kind, path in namespaces:
        request.OCI.Linux.Namespaces.add(Type=kind, Path=path)
    for source, kind, options in mounts or []:
        request.OCI.Mounts.add(destination="/d", source=source, type=kind, options=options)
    return bytes(request.SerializeToString(deterministic=True))


def parsed(payload: bytes) -> agent.CreateContainerRequest:
    return agent.CreateContainerRequest.FromString(payload)


def namespaces(payload: bytes) -> list[tuple[str, str]]:
    return [(one.Type, one.Path) for one in parsed(payload).OCI.Linux.Namespaces]


def test_a_container_gets_the_network_namespace() -> None:
    before = create([("ipc", ""), ("uts", ""), ("mount", "")])
    after, sources = rewrites.create_container(before)
    assert namespaces(after) == [("ipc", ""), ("uts", ""), ("mount", ""), ("network", "/run/netns/podns")]
    assert sources == []
    expected = parsed(before)
    expected.OCI.Linux.Namespaces.add(Type="network", Path="/run/netns/podns")
    assert parsed(after) == expected
    assert len(after) == len(before) + 29  # as the reference adds (traces/caa-normal)


@pytest.mark.parametrize("name", ["network", "net"])
def test_a_network_namespace_is_replaced_and_a_second_one_dropped(name: str) -> None:
    before = create([("ipc", ""), (name, "/proc/1/ns/net"), ("mnt", ""), (name, "")])
    after, _ = rewrites.create_container(before, "/run/netns/other")
    assert namespaces(after) == [("ipc", ""), ("network", "/run/netns/other"), ("mnt", "")]


def test_unknown_fields_stay_where_they_are() -> None:
    linux = edits.bytes_field(6, edits.bytes_field(1, b"ipc")) + UNKNOWN
    spec = UNKNOWN + edits.bytes_field(8, linux) + edits.bytes_field(1, b"1.2.0")
    before = edits.bytes_field(1, b"c1") + UNKNOWN + edits.bytes_field(6, spec) + UNKNOWN
    after, _ = rewrites.create_container(before)
    entry = edits.bytes_field(6, edits.bytes_field(1, b"network") + edits.bytes_field(2, b"/run/netns/podns"))
    spec = UNKNOWN + edits.bytes_field(8, linux + entry) + edits.bytes_field(1, b"1.2.0")
    assert after == edits.bytes_field(1, b"c1") + UNKNOWN + edits.bytes_field(6, spec) + UNKNOWN
    assert len(UnknownFieldSet(parsed(after))) == 4


def test_a_spec_without_linux_gets_one_and_no_spec_stays_none() -> None:
    after, _ = rewrites.create_container(edits.bytes_field(6, edits.bytes_field(1, b"1.2.0")))
    assert namespaces(after) == [("network", "/run/netns/podns")]
    assert rewrites.create_container(edits.bytes_field(1, b"c1")) == (edits.bytes_field(1, b"c1"), [])


def test_a_spec_in_two_pieces_is_one() -> None:
    first = edits.bytes_field(8, edits.bytes_field(5, b"/cg"))
    second = edits.bytes_field(8, edits.bytes_field(6, edits.bytes_field(1, b"net")))
    after, _ = rewrites.create_container(edits.bytes_field(6, first) + edits.bytes_field(6, second))
    assert namespaces(after) == [("network", "/run/netns/podns")]
    assert parsed(after).OCI.Linux.CgroupsPath == "/cg"


def test_bind_sources() -> None:
    payload = create(
        [],
        [
            ("/run/a", "bind", ["rbind", "ro"]),
            ("proc", "proc", ["nosuid"]),
            ("/run/b", "none", ["bind"]),
            ("/run/c", "", ["rbind"]),
            ("/run/a", "bind", []),
            ("relative", "bind", []),
            ("", "bind", []),
            ("/zero\0inside", "bind", []),
            ("/" + "x" * 5000, "bind", []),
            ("/dev/x", "tmpfs", ["ro"]),
        ],
    )
    assert rewrites.create_container(payload)[1] == ["/run/a", "/run/b", "/run/c"]


def test_create_sandbox_loses_dns_only() -> None:
    request = agent.CreateSandboxRequest(hostname="h", dns=["nameserver 10.0.0.1", ""], sandbox_id="s")
    request.storages.add(driver="ephemeral", mount_point="/run/shm")
    before = bytes(request.SerializeToString()) + UNKNOWN
    after = agent.CreateSandboxRequest.FromString(rewrites.create_sandbox(before))
    expected = agent.CreateSandboxRequest.FromString(before)
    del expected.dns[:]
    assert after == expected
    assert len(UnknownFieldSet(after)) == 2
    without = edits.bytes_field(1, b"h") + UNKNOWN
    assert rewrites.create_sandbox(without) == without


@given(st.binary(max_size=200))
def test_hostile_payloads_raise_one_error_or_stay_messages(data: bytes) -> None:
    for payload in (data, edits.bytes_field(6, data), edits.bytes_field(6, edits.bytes_field(8, data))):
        try:
            after, sources = rewrites.create_container(payload)
            rewrites.create_sandbox(payload)
        except edits.EditError:
            continue
        list(edits.fields(after))
        assert all(source.startswith("/") for source in sources)


def with_mounts(*mounts: tuple[str, str], annotation: str = "") -> bytes:
    request = agent.CreateContainerRequest(container_id="c")
    for destination, source in mounts:
        request.OCI.Mounts.add(destination=destination, source=source, type="bind", options=["rbind", "ro"])
    if annotation:
        request.OCI.Annotations[rewrites.CLOUD_VOLUMES] = annotation
    request.OCI.Annotations["other"] = "x"
    return request.SerializeToString()


def test_the_volumes_annotation_is_found() -> None:
    assert rewrites.cloud_volumes(with_mounts(annotation='{"vol": {}}')) == b'{"vol": {}}'
    assert rewrites.cloud_volumes(with_mounts()) == b""
    assert rewrites.cloud_volumes(b"") == b""


def test_mounts_of_volumes_come_from_their_disks() -> None:
    payload = with_mounts(
        ("/data", "/run/kata-containers/shared/x"), ("/sub", "/vol/a/b"), ("/whole", "/vol"), ("/etc", "/volume")
    )
    changed = rewrites.move_binds(payload, [(b"/data", b"/run/cloud-volumes/d"), (b"/vol", b"/run/cloud-volumes/v")])
    found = agent.CreateContainerRequest.FromString(changed)
    assert [mount.source for mount in found.OCI.Mounts] == [
        "/run/cloud-volumes/d", "/run/cloud-volumes/v/a/b", "/run/cloud-volumes/v", "/volume",
    ]  # fmt: skip
    assert {tuple(mount.options) for mount in found.OCI.Mounts} == {("rbind", "ro")}


def test_a_sub_path_does_not_climb_out() -> None:
    payload = with_mounts(("/sub", "/vol/../../etc"))
    assert rewrites.move_binds(payload, [(b"/vol", b"/run/cloud-volumes/v")]) == payload
