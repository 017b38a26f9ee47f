"""What is asked of EC2, as readable files, and a named test for each defect of the reference's driver."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from caa.errors import InvalidRequest, Misconfigured, ProviderError, ProviderUnavailable
from caa.model.ids import InstanceId
from caa.model.instance import Sizing
from caa.provider.choose import choose
from tests.fakes.aws.world import OWNER, World, launch, plain, world
from tests.fakes.faults import ALWAYS, Fault
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


class TestDefectsOfTheReference:
    """providers.md 5.1 and 5.2, the part about AWS."""

    async def test_a_second_interface_never_leaks(self, aws: World) -> None:
        """There the NIC was made, waited for, attached and modified in four calls."""
        driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true")
        made = await driver.create(launch())
        assert len(aws.ec2.ledger.alive("network interface")) == 2
        assert len(made.addresses) == 2
        assert "CreateNetworkInterface" not in aws.wire.calls()
        await driver.delete(made.id)
        assert not aws.ec2.ledger
        await driver.close()

    async def test_an_address_whose_use_failed_is_released(self, aws: World) -> None:
        driver = aws.make(EXTERNAL_NETWORK_VIA_PODVM="true", USE_PUBLIC_IP="true")
        aws.ec2.faults.plan("AssociateAddress", Fault.QUOTA, times=ALWAYS)
        with pytest.raises(ProviderError):
            await driver.create(launch())
        assert aws.ec2.ledger.made["address"] >= 1
        assert not aws.ec2.ledger
        await driver.close()

    async def test_an_address_that_could_not_be_released_is_found_again(self, aws: World) -> None:
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

    async def test_an_instance_that_is_not_listed_yet_is_removed_with_its_create(self, aws: World) -> None:
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

    async def test_an_instance_that_is_not_listed_yet_is_deleted(self, aws: World) -> None:
        driver = aws.make()
        made = await driver.create(launch())
        aws.ec2.faults.visible_after = 0.5
        await driver.delete(made.id)
        assert not aws.ec2.ledger
        await driver.close()

    async def test_a_public_address_that_comes_late_is_awaited(self, aws: World) -> None:
        """There a missing Association, or an empty reply, ended the whole daemon."""
        aws.ec2.delays.pending = 0.2
        driver = aws.make(USE_PUBLIC_IP="true")
        made = await driver.create(launch())
        assert str(made.addresses[0]).startswith("54.")
        assert str(made.addresses[1]).startswith("10.0.")
        await driver.delete(made.id)
        await driver.close()

    async def test_a_private_address_that_comes_late_is_awaited(self, aws: World) -> None:
        aws.ec2.delays.address = 0.2
        driver = aws.make()
        made = await driver.create(launch())
        assert str(made.addresses[0]).startswith("10.0.")
        await driver.delete(made.id)
        await driver.close()

    async def test_the_root_disk_is_the_images_own(self, aws: World) -> None:
        """There another image's root name made an extra, empty volume."""
        form = await form_of(
            aws,
            settings={"DISABLECVM": "true", "PODVM_INSTANCE_TYPE": "m6g.large", "ROOT_VOLUME_SIZE": "40"},
            image=aws.ec2.ami_arm,
        )
        assert form["BlockDeviceMapping.1.DeviceName"] == "/dev/xvda"
        assert form["BlockDeviceMapping.1.Ebs.VolumeSize"] == "40"
        assert aws.ec2.ledger.made["volume"] == 1

    async def test_the_root_disk_is_never_smaller_than_the_image(self, aws: World) -> None:
        form = await form_of(aws, settings={"ROOT_VOLUME_SIZE": "1"})
        assert int(form["BlockDeviceMapping.1.Ebs.VolumeSize"]) > 1
        own = await form_of(aws, settings={"ROOT_VOLUME_SIZE": "0"})
        assert own["BlockDeviceMapping.1.Ebs.VolumeSize"] == form["BlockDeviceMapping.1.Ebs.VolumeSize"]

    async def test_the_root_disk_is_encrypted_and_goes_with_the_instance(self, aws: World) -> None:
        form = await form_of(aws, settings={})
        assert form["BlockDeviceMapping.1.Ebs.Encrypted"] == "true"
        assert form["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"

    async def test_metadata_version_2_is_required(self, aws: World) -> None:
        form = await form_of(aws, settings={})
        assert form["MetadataOptions.HttpTokens"] == "required"
        assert form["MetadataOptions.HttpPutResponseHopLimit"] == "1"

    async def test_delete_of_what_is_long_gone_is_success(self, aws: World) -> None:
        """There InvalidInstanceID.NotFound kept the finalizer, and an empty id was an error for ever (#1401)."""
        driver = aws.make()
        for name in ("", "i-0123456789abcdef0", "i-", "eipalloc-0123456789abcdef0", "vm-1"):
            await driver.delete(InstanceId(name))
        await driver.close()

    async def test_everything_carries_the_owners_tags(self, aws: World) -> None:
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

    async def test_user_data_that_is_too_long_never_reaches_the_cloud(self, aws: World) -> None:
        driver = aws.make()
        with pytest.raises(InvalidRequest, match="16384"):
            await driver.create(launch(user_data=b"#" * 16385))
        assert aws.wire.calls() == []
        made = await driver.create(launch(user_data=b"#" * 16384))
        await driver.delete(made.id)
        await driver.close()

    async def test_an_instance_that_dies_at_once_is_told_with_its_reason(self, aws: World) -> None:
        aws.ec2.delays.pending = 30
        driver = aws.make(USE_PUBLIC_IP="true")
        aws.ec2.on_launch = lambda name: threading.Timer(0.2, aws.ec2.kill, [name]).start()
        with pytest.raises(ProviderError, match="ended before it was ready; EC2 says: Client"):
            await driver.create(launch())
        await driver.close()

    async def test_waits_end(self, aws: World) -> None:
        aws.ec2.delays.address = 1000
        aws.waits = type(aws.waits)(address=5, read_timeout=1.0)
        driver = aws.make()
        with pytest.raises(ProviderUnavailable, match="is ready: not after 5 s"):
            await driver.create(launch())
        assert not aws.ec2.ledger
        await driver.close()


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
    driver = aws.make()
    made = await driver.create(launch())
    assert b"Linux version" in await driver.console(made.id)
    assert await driver.console(InstanceId("i-0123456789abcdef0")) == b""
    await driver.delete(made.id)
    await driver.close()
