"""What is asked of EC2, as readable files, and a named test for each defect of the reference's driver."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from caa.errors import CapacityError, InvalidRequest, Misconfigured
from caa.model.ids import InstanceId
from caa.model.instance import Sizing
from caa.provider.choose import choose
from tests.fakes.aws.world import World, launch, plain, world
from tests.fakes.golden import assert_golden


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


def readable(form: Mapping[str, str], aws: World) -> str:
    return plain("".join(f"{key} = {value}\n" for key, value in sorted(form.items())), aws.ec2)


class TestGolden:
    """One plain, one confidential, one fully loaded launch. Remove a file to write it anew."""

    async def test_plain(self, aws: World) -> None:
        form = await form_of(aws, settings={"DISABLECVM": "true"})
        assert_golden("aws-launch-plain.txt", readable(form, aws))

    async def test_confidential(self, aws: World) -> None:
        assert_golden("aws-launch-confidential.txt", readable(await form_of(aws, settings={}), aws))

    async def test_fully_loaded(self, aws: World) -> None:
        aws.ec2.backend.create_key_pair("debug", "rsa", {})
        aws.ec2.places.groups, aws.ec2.places.profiles = {"near"}, {"podvm"}
        settings = {
            "EXTERNAL_NETWORK_VIA_PODVM": "true",
            "ROOT_VOLUME_SIZE": "60",
            "AWS_KMS_KEY_ID": "alias/podvm",
            "AWS_INSTANCE_PROFILE": "podvm",
            "AWS_METADATA_HOP_LIMIT": "2",
            "AWS_PLACEMENT_GROUP": "near",
            "AWS_TENANCY": "dedicated",
            "SSH_KP_NAME": "debug",
            "PURCHASE_OPTIONS": "spot",
            "TAGS": "team=blue,cost=7=8",
        }
        form = await form_of(aws, settings=settings)
        assert_golden("aws-launch-loaded.txt", readable(form, aws))


class TestAcceptance:
    """user-pains.md 5.1: texts that operators and the reference's tests look for."""

    async def test_an_image_that_does_not_exist(self, aws: World) -> None:
        driver = aws.make()
        with pytest.raises(InvalidRequest, match=r"^InvalidAMIID\.NotFound: .*PODVM_AMI_ID"):
            await driver.create(launch(image="ami-0abcdef1234567890"))
        await driver.close()

    async def test_types(self, aws: World) -> None:
        driver = aws.make(PODVM_INSTANCE_TYPES="m6a.large,c6a.xlarge,m5.large", DISABLECVM="true")
        types = await driver.instance_types()
        default = driver.capabilities.default_type
        assert choose(Sizing(vcpus=4, memory_mib=8192), types, default=default) == "c6a.xlarge"
        assert choose(Sizing(), types, default=default) == "m6a.large"
        with pytest.raises(InvalidRequest, match=r'^requested instance type \("t9.huge"\) is not part of supported'):
            choose(Sizing(instance_type="t9.huge"), types, default=default)
        with pytest.raises(InvalidRequest, match=r"given vcpus \(2\) and memory \(18432\)"):
            choose(Sizing(vcpus=2, memory_mib=18432), types, default=default)
        await driver.close()

    async def test_a_confidential_pod_is_never_offered_a_type_without_a_tee(self, aws: World) -> None:
        driver = aws.make(PODVM_INSTANCE_TYPES="m6a.large,c6a.xlarge,m5.large")
        types = await driver.instance_types()
        assert {one.name for one in types} == {"m6a.large", "c6a.xlarge"}
        with pytest.raises(Misconfigured, match="DISABLECVM"):
            await driver.create(launch(instance_type="m5.large"))
        await driver.close()

    async def test_a_confidential_pod_never_falls_back_to_a_type_without_a_tee(self, aws: World) -> None:
        aws.ec2.faults.full = {("m6a.large", "")}
        driver = aws.make(FALLBACK_TYPES="m5.large,c6a.large")
        made = await driver.create(launch())
        assert made.instance_type == "c6a.large"
        assert aws.ec2.last_launch()["CpuOptions.AmdSevSnp"] == "enabled"
        await driver.delete(made.id)
        await driver.close()
        driver = aws.make(FALLBACK_TYPES="m5.large")
        with pytest.raises(CapacityError):
            await driver.create(launch("podvm-web-99999999"))
        assert "m5.large" not in [one.request.form.get("InstanceType") for one in aws.wire.journal]
        await driver.close()

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"PODVM_AMI_ID": "ami-00000000000000002"}, "does not boot by UEFI"),
            ({"PODVM_AMI_ID": "ami-00000000000000003"}, "is for arm64"),
            ({"PODVM_INSTANCE_TYPE": "x99.large"}, "not in the cloud's catalogue"),
        ],
    )
    async def test_what_cannot_be_confidential_is_refused_before_it_costs(
        self, aws: World, settings: dict[str, str], told: str
    ) -> None:
        driver = aws.make(**settings)
        with pytest.raises(Misconfigured, match=told):
            await driver.create(launch())
        assert "RunInstances" not in aws.wire.calls()
        await driver.close()

    async def test_images_that_the_operator_does_not_allow(self, aws: World) -> None:
        driver = aws.make(IMAGE_ALLOWLIST="none")
        with pytest.raises(InvalidRequest, match="IMAGE_ALLOWLIST"):
            await driver.create(launch(image=aws.ec2.ami_arm))
        await driver.close()

    async def test_a_gpu_type_has_its_gpus(self, aws: World) -> None:
        driver = aws.make(PODVM_INSTANCE_TYPES="g4dn.xlarge", DISABLECVM="true")
        types = await driver.instance_types()
        assert choose(Sizing(gpus=1), types, default="m6a.large") == "g4dn.xlarge"
        await driver.close()


async def test_the_console(aws: World) -> None:
    """As it is now where the type can tell, of the boot where it cannot."""
    driver = aws.make(DISABLECVM="true", PODVM_INSTANCE_TYPES="m4.large")
    made = await driver.create(launch())
    assert b"Linux version" in await driver.console(made.id)
    assert aws.wire.journal[-1].request.form["Latest"] == "true"
    old = await driver.create(launch("podvm-old-00000001", instance_type="m4.large"))
    assert b"Linux version" in await driver.console(old.id)
    assert "Latest" not in aws.wire.journal[-1].request.form
    assert await driver.console(InstanceId("i-0123456789abcdef0")) == b""
    for one in (made, old):
        await driver.delete(one.id)
    await driver.close()


async def test_the_catalogue_is_fetched_once_and_kept_for_the_next_start(aws: World) -> None:
    """The reference asked for each type in a call of its own, at each start."""
    settings = {"PODVM_INSTANCE_TYPES": "m6a.xlarge,c6a.large,c6a.xlarge", "CAA_CATALOGUE_TTL": "1h"}
    first = aws.make(**settings)
    await asyncio.gather(*(first.instance_types() for _ in range(20)))
    await first.close()
    again = aws.make(**settings)
    assert len(await again.instance_types()) == 4
    assert aws.wire.calls().count("DescribeInstanceTypes") == 1
    await again.close()
    another = aws.make(PODVM_INSTANCE_TYPES="m6a.2xlarge")
    assert {one.name for one in await another.instance_types()} == {"m6a.large", "m6a.2xlarge"}
    await another.close()


async def test_a_pod_gets_the_cheapest_type_that_fits(aws: World) -> None:
    settings = {"PODVM_INSTANCE_TYPES": "m6a.large,c6a.xlarge,m6a.xlarge"}
    driver = aws.make(**settings, INSTANCE_TYPE_PRICES="m6a.xlarge=0.12,c6a.xlarge=0.15")
    assert choose(Sizing(vcpus=4), await driver.instance_types(), default="m6a.large") == "m6a.xlarge"
    await driver.close()


IMPORTS = """
import asyncio, json, sys
from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.model.instance import Owner
from caa.provider.registry import driver

async def main():
    found = driver("aws")
    told = [one for one in ("boto3", "botocore") if one in sys.modules]
    one = found.make(load((*NODE_ROWS, *found.settings), json.loads(sys.argv[1])))
    told += [one for one in ("boto3", "botocore") if one in sys.modules]
    await one.list_owned(Owner(cluster="c1", node="n1"))
    await one.close()
    print(json.dumps([told, "boto3" in sys.modules]))

asyncio.run(main())
"""


async def test_the_sdk_is_imported_with_the_first_call_and_by_this_driver_alone(aws: World) -> None:
    command = [sys.executable, "-c", IMPORTS, json.dumps(aws.environ())]
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [[], True]
