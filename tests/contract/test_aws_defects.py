"""A named test for each defect of the reference's EC2 driver; `DEFECTS` says which."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from caa.errors import InvalidRequest, ProviderError, ProviderUnavailable
from caa.model.ids import InstanceId
from tests.fakes.aws.world import OWNER, World, launch, world
from tests.fakes.faults import ALWAYS, Fault

# What providers.md 5.1 (A) and 5.2 (aws) say of the reference -> the tests that would fail if it were true here.
DEFECTS: Mapping[str, tuple[str, ...]] = {
    "NIC leak if the waiter fails after CreateNetworkInterface, or Modify fails": (
        "defects: test_a_second_interface_never_leaks",
    ),
    "EIP leak if the waiter fails after AllocateAddress": (
        "defects: test_an_address_whose_use_failed_is_released",
        "defects: test_an_address_whose_answer_was_lost_is_found_by_its_tags",
    ),
    "EIP leak if Disassociate fails on delete": ("defects: test_an_address_that_could_not_be_released_is_found_again",),
    "Association nil or Reservations empty: panic of the whole daemon": (
        "defects: test_a_public_address_that_comes_late_is_awaited",
        "defects: test_an_empty_answer_is_an_error_of_the_pod_alone",
    ),
    "first block device mapping without Ebs: panic, and it need not be the root": (
        "defects: test_an_image_whose_first_disk_is_not_the_root",
        "defects: test_an_image_without_a_root_disk_is_refused_in_words",
    ),
    "image annotation with another root device name: an extra empty volume": (
        "defects: test_the_root_disk_is_the_images_own",
    ),
    "template mode ignores CVM, type and image silently": (
        "places: test_a_template_does_not_hide_type_image_and_confidentiality",
        "places: test_a_pods_own_type_and_image_win_over_the_template",
    ),
    "no IP polling": ("defects: test_a_private_address_that_comes_late_is_awaited",),
    "no IMDSv2 hop-limit config": ("defects: test_metadata_version_2_is_required",),
    "root volume not encrypted, DeleteOnTermination inherited": (
        "defects: test_the_root_disk_is_encrypted_and_goes_with_the_instance",
    ),
    "AZ mismatch of volumes found only at attach": ("places: test_volumes_of_another_zone_cost_nothing",),
    "attach state read from Attachments[0]": (
        "places: test_a_pod_waits_until_its_volumes_are_attached",
        "places: test_a_volume_that_is_never_attached_costs_the_pod_vm",
        "shapes: test_the_attachment_that_counts_is_ours",
    ),
    "IMDS lookup blocks start": (
        "check: test_nothing_missing_nothing_asked",
        "check: test_a_metadata_service_that_never_answers_holds_nothing_up",
    ),
    "A1 no ownership tags, no list, no idempotency key": (
        "defects: test_everything_carries_the_owners_tags",
        "faults: test_a_lost_answer_is_the_same_instance",
        "faults: test_a_crash_after_the_call_finds_the_instance",
        "defects: test_a_crashed_nodes_instance_that_is_not_listed_yet_is_found",
    ),
    "A2 delete of something already gone is an error": ("defects: test_delete_of_what_is_long_gone_is_success",),
    "A5 no capacity fallback, no limiter, no time-outs": (
        "faults: test_no_room_moves_on_and_is_remembered",
        "faults: test_every_place_is_tried_in_order_and_named_and_nothing_is_left",
        "load: test_two_hundred_at_once",
        "defects: test_waits_end",
    ),
    "A6 no size guard": ("defects: test_user_data_that_is_too_long_never_reaches_the_cloud",),
    "A7 config errors surface at the first pod": ("check: test_what_is_wrong_is_told",),
}  # fmt: skip


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def form_of(aws: World, *, settings: Mapping[str, str], **request: object) -> Mapping[str, str]:
    """The RunInstances of one launch, which is removed again."""
    driver = aws.make(**settings)
    made = await driver.create(launch(**request))  # type: ignore[arg-type]
    await driver.delete(made.id)
    await driver.close()
    return aws.ec2.last_launch()


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_has_its_tests(defect: str) -> None:
    for one in DEFECTS[defect]:
        where, name = one.split(": ")
        contract, unit = Path(__file__).parent, Path(__file__).parents[1] / "unit/providers"
        file = f"test_{where}.py" if where in ("faults", "load") else f"test_aws_{where}.py"
        path = (unit if where == "shapes" else contract) / file
        assert f"def {name}(" in path.read_text()


async def test_a_second_interface_never_leaks(aws: World) -> None:
    """There the NIC was made, waited for, attached and modified in four calls."""
    driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true")
    made = await driver.create(launch())
    assert len(aws.ec2.ledger.alive("network interface")) == 2
    assert len(made.addresses) == 2
    assert "CreateNetworkInterface" not in aws.wire.calls()
    await driver.delete(made.id)
    assert not aws.ec2.ledger
    await driver.close()


async def test_an_address_whose_use_failed_is_released(aws: World) -> None:
    driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true")
    aws.ec2.faults.plan("AssociateAddress", Fault.QUOTA, times=ALWAYS)
    with pytest.raises(ProviderError):
        await driver.create(launch())
    assert aws.ec2.ledger.made["address"] >= 1
    assert not aws.ec2.ledger
    await driver.close()


async def test_an_address_that_could_not_be_released_is_found_again(aws: World) -> None:
    """There the error was swallowed, the instance was terminated, the address stayed."""
    driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true")
    made = await driver.create(launch())
    aws.ec2.faults.plan("ReleaseAddress", Fault.UNAUTHORISED, times=ALWAYS)
    with pytest.raises(ProviderError, match="UnauthorizedOperation"):
        await driver.delete(made.id)
    aws.calm()
    orphans = [one.id for one in await driver.list_owned(OWNER)]
    assert {one.split("-")[0] for one in orphans} <= {"i", "eipalloc"}
    assert orphans
    await aws.swept(driver)
    await driver.close()


async def test_an_instance_that_is_not_listed_yet_is_removed_with_its_create(aws: World) -> None:
    """Taken for gone because DescribeInstances did not show it, it would have run on."""
    aws.ec2.faults.visible_after = 0.3
    driver = aws.make(USE_PUBLIC_IP="true")
    creating = asyncio.ensure_future(driver.create(launch()))
    await asyncio.to_thread(aws.ec2.began.wait)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert aws.ec2.ledger.made["instance"] == 1
    assert not aws.ec2.ledger
    await driver.close()


async def test_an_instance_that_is_not_listed_yet_is_deleted(aws: World) -> None:
    driver = aws.make()
    made = await driver.create(launch())
    aws.ec2.faults.visible_after = 0.5
    await driver.delete(made.id)
    assert not aws.ec2.ledger
    await driver.close()


async def test_a_public_address_that_comes_late_is_awaited(aws: World) -> None:
    """There a missing Association, or an empty reply, ended the whole daemon."""
    aws.ec2.delays.pending = 0.2
    driver = aws.make(USE_PUBLIC_IP="true")
    made = await driver.create(launch())
    assert str(made.addresses[0]).startswith("54.")
    assert str(made.addresses[1]).startswith("10.0.")
    await driver.delete(made.id)
    await driver.close()


async def test_a_private_address_that_comes_late_is_awaited(aws: World) -> None:
    aws.ec2.delays.address = 0.2
    driver = aws.make()
    made = await driver.create(launch())
    assert str(made.addresses[0]).startswith("10.0.")
    await driver.delete(made.id)
    await driver.close()


async def test_the_root_disk_is_the_images_own(aws: World) -> None:
    """There another image's root name made an extra, empty volume."""
    form = await form_of(
        aws,
        settings={"DISABLECVM": "true", "PODVM_INSTANCE_TYPE": "m6g.large", "ROOT_VOLUME_SIZE": "40"},
        image=aws.ec2.ami_arm,
    )
    assert form["BlockDeviceMapping.1.DeviceName"] == "/dev/xvda"
    assert form["BlockDeviceMapping.1.Ebs.VolumeSize"] == "40"
    assert aws.ec2.ledger.made["volume"] == 1


async def test_the_root_disk_is_never_smaller_than_the_image(aws: World) -> None:
    form = await form_of(aws, settings={"ROOT_VOLUME_SIZE": "1"})
    assert int(form["BlockDeviceMapping.1.Ebs.VolumeSize"]) > 1
    own = await form_of(aws, settings={"ROOT_VOLUME_SIZE": "0"})
    assert own["BlockDeviceMapping.1.Ebs.VolumeSize"] == form["BlockDeviceMapping.1.Ebs.VolumeSize"]


async def test_the_root_disk_is_encrypted_and_goes_with_the_instance(aws: World) -> None:
    form = await form_of(aws, settings={})
    assert form["BlockDeviceMapping.1.Ebs.Encrypted"] == "true"
    assert form["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"


async def test_metadata_version_2_is_required(aws: World) -> None:
    form = await form_of(aws, settings={})
    assert form["MetadataOptions.HttpTokens"] == "required"
    assert form["MetadataOptions.HttpPutResponseHopLimit"] == "1"


async def test_delete_of_what_is_long_gone_is_success(aws: World) -> None:
    """There InvalidInstanceID.NotFound kept the finalizer, and an empty id was an error for ever (#1401)."""
    driver = aws.make()
    for name in ("", "i-0123456789abcdef0", "i-", "eipalloc-0123456789abcdef0", "vm-1"):
        await driver.delete(InstanceId(name))
    await driver.close()


async def test_everything_carries_the_owners_tags(aws: World) -> None:
    driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true", TAGS="team=blue")
    made = await driver.create(launch())
    kinds = {one.kind for one in aws.ec2.ledger.alive()}
    assert kinds == {"instance", "volume", "network interface", "address"}
    for one in aws.ec2.ledger.alive():
        assert one.tags["caa-cluster"] == OWNER.cluster, one
        assert one.tags["caa-sandbox"] == "sandbox-0a1b2c3d", one
        assert one.tags["team"] == "blue", one
    await driver.delete(made.id)
    await driver.close()


async def test_user_data_that_is_too_long_never_reaches_the_cloud(aws: World) -> None:
    driver = aws.make()
    with pytest.raises(InvalidRequest, match="16384"):
        await driver.create(launch(user_data=b"#" * 16385))
    assert aws.wire.calls() == []
    made = await driver.create(launch(user_data=b"#" * 16384))
    await driver.delete(made.id)
    await driver.close()


async def test_an_instance_that_dies_at_once_is_told_with_its_reason(aws: World) -> None:
    aws.ec2.delays.pending = 30
    driver = aws.make(USE_PUBLIC_IP="true")
    aws.ec2.on_launch = lambda name: threading.Timer(0.2, aws.ec2.kill, [name]).start()
    with pytest.raises(ProviderError, match="ended before it was ready; EC2 says: Client"):
        await driver.create(launch())
    await driver.close()


async def test_waits_end(aws: World) -> None:
    aws.ec2.delays.address = 1000
    aws.waits = type(aws.waits)(address=5, read_timeout=1.0)
    driver = aws.make()
    with pytest.raises(ProviderUnavailable, match="is ready: not after 5 s"):
        await driver.create(launch())
    assert not aws.ec2.ledger
    await driver.close()


async def test_an_address_whose_answer_was_lost_is_found_by_its_tags(aws: World) -> None:
    """AllocateAddress knows no token: it is not sent again, and what it made is removed with the pod VM."""
    driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true")
    aws.ec2.faults.plan("AllocateAddress", Fault.LOST_ANSWER)
    with pytest.raises(ProviderUnavailable):
        await driver.create(launch())
    assert aws.ec2.ledger.made["address"] >= 1
    await aws.swept(driver)
    await driver.close()


async def test_an_empty_answer_is_an_error_of_the_pod_alone(aws: World) -> None:
    """RunInstances and DescribeInstances that name nothing, as XML that is well-formed."""
    driver = aws.make(USE_PUBLIC_IP="true")
    aws.ec2.empty = {"RunInstances"}
    with pytest.raises(ProviderUnavailable, match="names no instance"):
        await driver.create(launch())
    aws.ec2.empty = set()
    await aws.swept(driver)
    made = await driver.create(launch("podvm-web-99999999"))
    aws.ec2.empty = {"DescribeInstances"}
    assert await driver.list_owned(OWNER) == []
    aws.ec2.empty = set()
    await driver.delete(made.id)
    await driver.close()


async def test_an_image_whose_first_disk_is_not_the_root(aws: World) -> None:
    """An instance store comes first, and has no Ebs at all."""
    image = aws.ec2.make_image("ami-00000000000000004")
    aws.ec2.mappings[image] = [("/dev/sdb", "ephemeral0"), ("/dev/sda1", "ebs")]
    form = await form_of(aws, settings={"PODVM_AMI_ID": image})
    assert form["BlockDeviceMapping.1.DeviceName"] == "/dev/sda1"
    assert aws.ec2.ledger.made["volume"] == 1


async def test_an_image_without_a_root_disk_is_refused_in_words(aws: World) -> None:
    image = aws.ec2.make_image("ami-00000000000000005")
    aws.ec2.mappings[image] = [("/dev/sdb", "ephemeral0")]
    driver = aws.make(PODVM_AMI_ID=image)
    with pytest.raises(InvalidRequest, match="no EBS root disk"):
        await driver.create(launch())
    await driver.close()


async def test_a_crashed_nodes_instance_that_is_not_listed_yet_is_found(aws: World) -> None:
    """Another process has other user data, so EC2 refuses its token; a second pod VM must not come of that."""
    aws.waits = replace(aws.waits, looks=100)
    first, again = aws.make(), aws.make()
    aws.faults.visible_after = 0.5
    creating = asyncio.ensure_future(first.create(launch()))
    await asyncio.to_thread(aws.ec2.began.wait)
    made = await again.create(launch(user_data=b"#cloud-config\n# another key\n"))
    assert (await creating).id == made.id
    assert aws.ledger.made["instance"] == 1
    await again.delete(made.id)
    for one in (first, again):
        await one.close()


async def test_cancelled_while_it_looks_for_a_crashed_nodes_instance_a_create_leaves_none(aws: World) -> None:
    aws.waits = replace(aws.waits, looks=1000)
    first, again = aws.make(), aws.make()
    await first.create(launch())
    aws.faults.visible_after = 3600
    creating = asyncio.ensure_future(again.create(launch(user_data=b"#cloud-config\n# another key\n")))
    calls = aws.wire.calls
    while calls().count("RunInstances") < 2 or calls()[-1] != "DescribeInstances":  # noqa: ASYNC110  # EC2 tells nobody
        await asyncio.sleep(0.01)
    creating.cancel()
    aws.faults.visible_after = 0
    with pytest.raises(asyncio.CancelledError):
        await creating
    aws.nothing_left()
    for one in (first, again):
        await one.close()
