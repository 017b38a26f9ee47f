"""Every call of a driver's life x every fault: an empty ledger or a found orphan, and a message with the remedy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from caa.errors import (
    CapacityError,
    CredentialsError,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
    QuotaError,
    Throttled,
)
from caa.provider.contract import InstanceState, Provider
from tests.fakes.aws.world import OWNER, World, launch, plain, world
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.golden import assert_golden

MAKING = (
    "DescribeInstances", "RunInstances", "DescribeInstanceTypes", "DescribeInstanceTypeOfferings", "DescribeImages",
    "DescribeSubnets", "DescribeVolumes", "AttachVolume", "DescribeAddresses", "AllocateAddress", "AssociateAddress",
)  # fmt: skip
ENDING = ("DescribeInstances", "TerminateInstances", "DescribeAddresses", "DisassociateAddress", "ReleaseAddress")
SETTINGS = {"USE_PUBLIC_IP": "true", "EXTERNAL_NETWORK_VIA_PODVM": "true"}

FINAL = (Fault.UNAUTHORISED, Fault.CAPACITY, Fault.QUOTA)
KINDS = {
    Fault.THROTTLED: Throttled,
    Fault.UNAUTHORISED: CredentialsError,
    Fault.CAPACITY: CapacityError,
    Fault.QUOTA: QuotaError,
    Fault.TIMEOUT: ProviderUnavailable,
    Fault.LOST_ANSWER: ProviderUnavailable,
    Fault.MALFORMED: ProviderUnavailable,
    Fault.RESET: ProviderUnavailable,
}


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.waits = type(made.waits)(read_timeout=0.3, looks=5, undo=200, running=20, address=20, attach=20)
        yield made


def driver(aws: World) -> Provider:
    return aws.make(**SETTINGS)


async def outcome(driver: Provider, aws: World) -> str:
    """Create a pod VM with everything; what became of it."""
    volume = aws.ec2.make_volume("eu-west-1a")
    try:
        made = await driver.create(launch(volumes=(volume,)))
    except ProviderError as error:
        return str(error)
    assert made.addresses
    return "made"


@pytest.mark.parametrize("call", MAKING)
async def test_a_fault_once_while_making(aws: World, call: str) -> None:
    """What may be repeated is; whatever the outcome, the sweep leaves nothing."""
    one = driver(aws)
    for fault in Fault:
        aws.ec2.faults.plan(call, fault)
        told = await outcome(one, aws)
        lost = call == "AllocateAddress" and fault is not Fault.THROTTLED
        assert told == "made" or fault in FINAL or lost, (fault, told)
        assert await aws.swept(one) == [] or told == "made", (fault, told)
    await one.close()


@pytest.mark.parametrize("call", ENDING)
async def test_a_fault_once_while_ending(aws: World, call: str) -> None:
    aws.ec2.delays.ending = 0.2  # addresses are held until the instance is gone
    one = driver(aws)
    for fault in Fault:
        made = await one.create(launch())
        aws.ec2.faults.plan(call, fault)
        with suppress(*((ProviderError,) if fault in FINAL else ())):
            await one.delete(made.id)
        assert call in aws.wire.calls(fault=fault)
        await aws.swept(one)
    await one.close()


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_that_stays_names_its_remedy(aws: World, fault: Fault) -> None:
    """The golden file holds what an operator reads; remove it to write it anew."""
    lines = []
    for call in ("DescribeImages", "RunInstances", "AllocateAddress", "AttachVolume"):
        one = driver(aws)
        aws.ec2.faults.plan(call, fault, times=ALWAYS)
        told = await outcome(one, aws)
        assert told != "made"
        lines.append(f"{call}\n    {plain(told, aws.ec2)}\n")
        left = await aws.swept(one)
        # What a lost answer of the cloud made is removed at once, or found by its tags.
        assert not left or fault in (Fault.LOST_ANSWER, Fault.MALFORMED)
        await one.close()
    assert_golden(f"aws-messages-{fault.replace(' ', '-')}.txt", "".join(lines))


@pytest.mark.parametrize("fault", list(Fault))
async def test_each_fault_is_an_error_of_its_own_type(aws: World, fault: Fault) -> None:
    one = aws.make()
    aws.ec2.faults.plan("RunInstances", fault, times=ALWAYS)
    with pytest.raises(KINDS[fault]) as caught:
        await one.create(launch())
    assert caught.value.retryable is KINDS[fault].retryable
    await aws.swept(one)
    await one.close()


async def test_a_lost_answer_is_the_same_instance(aws: World) -> None:
    """providers.md 6.1: with a random token a repeated RunInstances makes a second pod VM."""
    one = aws.make()
    aws.ec2.faults.plan("RunInstances", Fault.LOST_ANSWER, times=2)
    made = await one.create(launch())
    assert aws.ec2.ledger.made["instance"] == 1
    assert [listed.id for listed in await one.list_owned(OWNER)] == [made.id]
    await one.delete(made.id)
    await one.close()


async def test_a_crash_after_the_call_finds_the_instance(aws: World) -> None:
    """providers.md A1: a restart while CreateInstance runs left a pod VM that nothing knew about."""
    first = aws.make()
    aws.ec2.delays.address = 0.4
    creating = asyncio.ensure_future(first.create(launch()))
    await asyncio.to_thread(aws.ec2.began.wait)
    again = aws.make()  # another process: other user data, the first one is never heard of again
    made = await again.create(launch(user_data=b"#cloud-config\n# another key\n"))
    assert (await creating).id == made.id
    assert aws.ec2.ledger.made["instance"] == 1
    await again.delete(made.id)
    await first.close()
    await again.close()


async def test_throttling_obeys_retry_after(aws: World) -> None:
    one = aws.make()
    aws.ec2.faults.retry_after = 20  # 0.4 s of the driver's clock
    aws.ec2.faults.plan("RunInstances", Fault.THROTTLED)
    made = await one.create(launch())
    first, second = (noted.at for noted in aws.wire.journal if noted.call == "RunInstances")
    assert second - first >= 0.4
    await one.delete(made.id)
    await one.close()


async def test_no_room_moves_on_in_order_and_is_remembered(aws: World) -> None:
    subnets = aws.ec2.subnets
    one = aws.make(FALLBACK_ZONES=",".join(subnets[1:]), FALLBACK_TYPES="c6a.large,m6a.xlarge")
    aws.ec2.faults.full = {("m6a.large", "eu-west-1a"), ("m6a.large", "eu-west-1b"), ("m6a.large", "eu-west-1c")}
    made = await one.create(launch())
    assert made.instance_type == "c6a.large"
    before = len(aws.wire.calls())
    again = await one.create(launch("podvm-web-99999999"))
    assert again.instance_type == "c6a.large"
    assert aws.wire.calls()[before:].count("RunInstances") == 1
    for each in (made, again):
        await one.delete(each.id)
    await one.close()


async def test_spot_first_then_on_demand(aws: World) -> None:
    one = aws.make(PURCHASE_OPTIONS="spot,on-demand")
    aws.ec2.faults.plan("RunInstances", Fault.CAPACITY)
    made = await one.create(launch())
    forms = [noted.request.form for noted in aws.wire.journal if noted.call == "RunInstances"]
    assert [form.get("InstanceMarketOptions.MarketType") for form in forms] == ["spot", None]
    await one.delete(made.id)
    await one.close()


async def test_no_room_anywhere_names_every_place(aws: World) -> None:
    one = aws.make(FALLBACK_ZONES=aws.ec2.subnets[1])
    aws.ec2.faults.full = {("", "")}
    with pytest.raises(CapacityError) as caught:
        await one.create(launch())
    assert plain(str(caught.value), aws.ec2).count("InsufficientInstanceCapacity") == 2
    assert "m6a.large in subnet-2" in plain(str(caught.value), aws.ec2)
    await one.close()


async def test_a_missing_setting_is_named(aws: World) -> None:
    for key in ("PODVM_AMI_ID", "AWS_SUBNET_ID", "AWS_SG_IDS"):
        one = aws.make(**{key: "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"})
        with pytest.raises(Misconfigured, match=key):
            await one.create(launch())
        await one.close()


@pytest.mark.parametrize("fault", [one for one in Fault if one not in FINAL])
async def test_a_state_that_cannot_be_read_is_an_error_and_never_an_end(aws: World, fault: Fault) -> None:
    one = aws.make()
    made = await one.create(launch())
    aws.ec2.faults.plan("DescribeInstances", fault, times=ALWAYS)
    with pytest.raises(ProviderUnavailable):
        await one.state(made.id)
    aws.calm()
    assert await one.state(made.id) is InstanceState.RUNNING
    await one.delete(made.id)
    await one.close()
