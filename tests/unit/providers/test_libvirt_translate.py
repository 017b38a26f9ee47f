"""Launch requests into plans, records into instances: sizes, images and data volumes that a pod may ask for."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InstanceTypeError, InvalidRequest, ProviderError
from caa.model.ids import SandboxId
from caa.model.instance import Sizing
from caa.provider.contract import InstanceState, LaunchRequest, Owner
from providers.libvirt import domain, translate
from providers.libvirt.translate import Site

SITE = Site(pool="default", network="default", volume="base.qcow2", images=("gpu-*", "old.qcow2"))
REQUEST = LaunchRequest(
    name="podvm-web-0a1b2c3d",
    sandbox=SandboxId("sandbox-1"),
    owner=Owner(cluster="c", node="n"),
    token="t",
    user_data=b"x",
)


def plan(site: Site = SITE, **changes: object) -> translate.Plan:
    return translate.plan(site, replace(REQUEST, **changes), uuid="u", now=12.3456)


@pytest.mark.parametrize(
    ("sizing", "expected"),
    [
        (Sizing(), (2, 8192)),
        (Sizing(vcpus=4), (4, 8192)),
        (Sizing(memory_mib=512), (2, 512)),
        (Sizing(vcpus=1, memory_mib=1024), (1, 1024)),
        (Sizing(instance_type="8x16384", vcpus=1), (8, 16384)),
    ],
)
def test_sizes(sizing: Sizing, expected: tuple[int, int]) -> None:
    """Each number by itself, as in the reference; a type wins."""
    made = plan(sizing=sizing)
    assert (made.vcpus, made.memory_mib) == expected
    assert made.record.size == f"{expected[0]}x{expected[1]}"


@pytest.mark.parametrize("name", ["0x10", "2x", "x", "2x0", "-1x512", "m5.large", "2x512x", "2 x 512", "²x512"])
def test_types_that_are_none(name: str) -> None:
    with pytest.raises(InstanceTypeError, match="machine_type"):
        plan(sizing=Sizing(instance_type=name))


@pytest.mark.parametrize("sizing", [Sizing(vcpus=-1), Sizing(memory_mib=-1)])
def test_defect_negative_numbers(sizing: Sizing) -> None:
    """The reference makes huge unsigned ones of them (providers.md 2)."""
    with pytest.raises(InstanceTypeError):
        plan(sizing=sizing)


@pytest.mark.parametrize("sizing", [Sizing(gpus=1), Sizing(gpu_model="h100")])
def test_gpus_are_refused_not_ignored(sizing: Sizing) -> None:
    with pytest.raises(InstanceTypeError, match="no GPUs"):
        plan(sizing=sizing)


@pytest.mark.parametrize("asked", ["", "base.qcow2", "gpu-1.qcow2", "old.qcow2"])
def test_images_that_are_allowed(asked: str) -> None:
    assert plan(image=asked).image == (asked or "base.qcow2")


@pytest.mark.parametrize("asked", ["other.qcow2", "podvm-db-1-root.qcow2", "../x", "/etc/passwd", "a b", "x" * 300])
def test_images_that_are_not(asked: str) -> None:
    with pytest.raises(InvalidRequest, match="annotation"):
        plan(image=asked)


def test_another_pod_s_disk_is_no_image_whatever_is_allowed() -> None:
    with pytest.raises(InvalidRequest, match="file of a pod VM"):
        plan(replace(SITE, images=("*",)), image="podvm-db-1-root.qcow2")


def test_direct_boot_has_no_image_unless_one_is_set() -> None:
    site = replace(SITE, volume="", kernel="/k")
    made = plan(site)
    assert made.image == ""
    volumes = dict(domain.volumes(site, made.record, image=None, seed_size=1))
    assert list(volumes) == [made.record.console, made.record.seed]


def test_data_volumes_in_order() -> None:
    assert plan(volumes=("pvc-2", "pvc-1")).data == ("pvc-2", "pvc-1")


@pytest.mark.parametrize(
    "volumes",
    [
        ("../pvc",),
        ("",),
        ("a", "a"),
        ("base.qcow2",),
        ("podvm-db-1-root.qcow2",),
        ("podvm-db-1-seed.iso",),
        ("old.qcow2",),
        ("pvc-1", "gpu-2"),
        tuple(f"pvc-{number}" for number in range(23)),
    ],
)
def test_data_volumes_that_are_refused(volumes: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        plan(volumes=volumes)


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "-a", "a-", "x" * 64, "ü"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidRequest, match="instance name"):
        plan(name=name)


def test_what_metadata_cannot_hold() -> None:
    with pytest.raises(InvalidRequest, match="metadata"):
        plan(owner=Owner(cluster="a\0b", node="n"))


words = st.text(st.characters(min_codepoint=32, exclude_categories=["C", "Z"]), max_size=20)


@given(cluster=words, node=words, sandbox=words, tags=st.dictionaries(words, words, max_size=3))
def test_a_record_comes_back(cluster: str, node: str, sandbox: str, tags: dict[str, str]) -> None:
    made = plan(owner=Owner(cluster=cluster, node=node), sandbox=SandboxId(sandbox), tags=tags).record
    known = translate.with_addresses(made, (ip_address("192.0.2.1"), ip_address("2001:db8::1")))
    for record in (made, known):
        assert translate.record_of(domain.record_text(record), name=record.name, uuid=record.uuid) == record


@pytest.mark.parametrize(
    "text", ["", "<podvm/>", "<podvm", "<podvm created='x' cluster='' node='' sandbox='' pool='' />"]
)
def test_records_that_are_none(text: str) -> None:
    with pytest.raises(ProviderError, match="metadata of the domain web"):
        translate.record_of(text, name="web", uuid="u")


def test_addresses() -> None:
    words = ["fe80::1", "2001:db8::2", "127.0.0.1", "192.0.2.9", "192.0.2.9", "rubbish", "0.0.0.0", "224.0.0.1"]
    assert [str(one) for one in translate.usable(words)] == ["192.0.2.9", "2001:db8::2"]


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        (1, 1, InstanceState.RUNNING),
        (2, 0, InstanceState.RUNNING),
        (3, 1, InstanceState.RUNNING),  # paused by an operator
        (7, 0, InstanceState.RUNNING),  # suspended by its guest
        (3, 5, InstanceState.STOPPED),  # I/O error
        (4, 0, InstanceState.STOPPED),
        (5, 1, InstanceState.STOPPED),
        (6, 0, InstanceState.STOPPED),
        (0, 0, InstanceState.UNKNOWN),
    ],
)
def test_states(state: int, reason: int, expected: InstanceState) -> None:
    assert translate.state_of(state, reason) is expected


def test_instance_ids() -> None:
    assert translate.is_instance("9d2bb2d1-26ba-4b4e-ae1f-2a1dd9a85e0e")
    for text in ("", "x", "podvm-web-0a1b2c3d", "9D2BB2D1-26ba-4b4e-ae1f-2a1dd9a85e0e\n"):
        assert not translate.is_instance(text)
