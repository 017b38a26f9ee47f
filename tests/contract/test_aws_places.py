"""Where a pod VM goes on EC2 and what it gets: templates, hosts, groups, reservations, capacity blocks, volumes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from caa.errors import ConfigError, InvalidRequest, Misconfigured, ProviderUnavailable
from tests.fakes.aws.world import World, launch, plain, world
from tests.fakes.golden import assert_golden

HOSTS = "arn:aws:resource-groups:eu-west-1:123456789012:group/hosts"


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def form_of(aws: World, **settings: str) -> Mapping[str, str]:
    """The RunInstances of one launch that EC2 takes; the pod VM is removed again."""
    driver = aws.make(**settings)
    made = await driver.create(launch())
    await driver.delete(made.id)
    await driver.close()
    return aws.ec2.last_launch()


def about(form: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """The part of a request that these prefixes select."""
    return {key: value for key, value in form.items() if key.startswith(prefixes)}


class TestPlaces:
    """Dedicated hosts, placement groups, reservations and capacity blocks, as EC2 takes them."""

    async def test_a_dedicated_host(self, aws: World) -> None:
        aws.ec2.places.hosts = {"h-0123456789abcdef0"}
        form = await form_of(aws, AWS_DEDICATED_HOST_ID="h-0123456789abcdef0")
        assert about(form, "Placement") == {"Placement.HostId": "h-0123456789abcdef0", "Placement.Tenancy": "host"}
        assert form["CpuOptions.AmdSevSnp"] == "enabled"
        assert_golden("aws-launch-host.txt", readable(form, aws))

    async def test_a_host_resource_group(self, aws: World) -> None:
        aws.ec2.places.host_groups = {HOSTS}
        form = await form_of(aws, AWS_HOST_RESOURCE_GROUP_ARN=HOSTS)
        assert about(form, "Placement") == {"Placement.HostResourceGroupArn": HOSTS, "Placement.Tenancy": "host"}

    async def test_a_placement_group(self, aws: World) -> None:
        aws.ec2.places.groups = {"near"}
        assert about(await form_of(aws, AWS_PLACEMENT_GROUP="near"), "Placement") == {"Placement.GroupName": "near"}

    async def test_a_capacity_reservation(self, aws: World) -> None:
        aws.ec2.places.reservations = {"cr-0123456789abcdef0": False}
        form = await form_of(aws, AWS_CAPACITY_RESERVATION_ID="cr-0123456789abcdef0")
        assert list(about(form, "Capacity", "InstanceMarket").values()) == ["cr-0123456789abcdef0"]

    async def test_a_capacity_block(self, aws: World) -> None:
        aws.ec2.places.reservations = {"cr-0123456789abcdef0": True}
        settings = {"AWS_CAPACITY_RESERVATION_ID": "cr-0123456789abcdef0", "AWS_CAPACITY_BLOCK": "true"}
        form = await form_of(aws, **settings)
        assert form["InstanceMarketOptions.MarketType"] == "capacity-block"
        assert_golden("aws-launch-capacity-block.txt", readable(form, aws))

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"AWS_PLACEMENT_GROUP": "far"}, "AWS_PLACEMENT_GROUP"),
            ({"AWS_DEDICATED_HOST_ID": "h-1"}, "AWS_DEDICATED_HOST_ID"),
            ({"AWS_CAPACITY_RESERVATION_ID": "cr-1"}, "AWS_CAPACITY_RESERVATION_ID"),
        ],
    )
    async def test_a_place_that_is_not_there_is_told_by_its_setting(
        self, aws: World, settings: dict[str, str], told: str
    ) -> None:
        driver = aws.make(**settings)
        with pytest.raises(Misconfigured, match=told):
            await driver.create(launch())
        await driver.close()

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"AWS_CAPACITY_BLOCK": "true"}, "without AWS_CAPACITY_RESERVATION_ID"),
            ({"PURCHASE_OPTIONS": "spot", "AWS_CAPACITY_RESERVATION_ID": "cr-1"}, "take spot out"),
            ({"PURCHASE_OPTIONS": "on-demand,spot", "AWS_TENANCY": "host"}, "take spot out"),
            ({"PURCHASE_OPTIONS": "spot", "AWS_HOST_RESOURCE_GROUP_ARN": HOSTS}, "take spot out"),
        ],
    )
    def test_settings_that_ec2_does_not_take_together(self, aws: World, settings: dict[str, str], told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            aws.make(**settings)


class TestTemplates:
    """A launch template, combined with what settings and pods ask for."""

    async def test_a_template_does_not_hide_type_image_and_confidentiality(self, aws: World) -> None:
        """There a pod that had to be confidential could start as an ordinary VM."""
        data = {"ImageId": aws.ec2.ami_bios, "InstanceType": "m5.large"}
        aws.ec2.backend.create_launch_template("kata", "", data, {})
        settings = {"USE_PODVM_LAUNCHTEMPLATE": "true"}
        form = await form_of(aws, **settings, PODVM_INSTANCE_TYPE="m6a.xlarge")
        assert_golden("aws-launch-template.txt", readable(form, aws))
        assert form["LaunchTemplate.LaunchTemplateName"] == "kata"
        assert form["InstanceType"] == "m6a.xlarge"
        assert form["ImageId"] == aws.ec2.ami
        assert form["CpuOptions.AmdSevSnp"] == "enabled"
        driver = aws.make(**settings, PODVM_AMI_ID="")
        with pytest.raises(Misconfigured, match="DISABLECVM"):
            await driver.create(launch())
        await driver.close()

    async def test_a_templates_own_image_type_and_subnet_count(self, aws: World) -> None:
        nic = {"SubnetId": aws.ec2.subnets[1], "Groups": [aws.ec2.group], "DeviceIndex": "0"}
        data = {"ImageId": aws.ec2.ami, "InstanceType": "c6a.large", "NetworkInterfaces": [nic]}
        aws.ec2.backend.create_launch_template("kata", "", data, {})
        settings = {"USE_PODVM_LAUNCHTEMPLATE": "1", "PODVM_AMI_ID": "", "AWS_SUBNET_ID": "", "AWS_SG_IDS": ""}
        form = await form_of(aws, **settings, DISABLECVM="true")
        assert form["InstanceType"] == "c6a.large"
        assert form["NetworkInterface.1.SubnetId"] == aws.ec2.subnets[1]

    async def test_a_pods_own_type_and_image_win_over_the_template(self, aws: World) -> None:
        data = {"ImageId": aws.ec2.ami_bios, "InstanceType": "m5.large"}
        aws.ec2.backend.create_launch_template("kata", "", data, {})
        driver = aws.make(USE_PODVM_LAUNCHTEMPLATE="1", PODVM_AMI_ID="", PODVM_INSTANCE_TYPES="c6a.xlarge")
        made = await driver.create(launch(image=aws.ec2.ami, instance_type="c6a.xlarge"))
        form = aws.ec2.last_launch()
        assert (form["InstanceType"], form["ImageId"]) == ("c6a.xlarge", aws.ec2.ami)
        assert form["CpuOptions.AmdSevSnp"] == "enabled"
        await driver.delete(made.id)
        await driver.close()


class TestVolumes:
    """Data volumes: zones matched before anything is paid for, attached, awaited, let go of."""

    async def test_volumes_of_another_zone_cost_nothing(self, aws: World) -> None:
        """There the zone was looked at when the volume was attached: the pod VM was paid for already."""
        volume = aws.ec2.make_volume("eu-west-1c")
        driver = aws.make()
        with pytest.raises(InvalidRequest, match="FALLBACK_ZONES"):
            await driver.create(launch(volumes=(volume,)))
        assert "RunInstances" not in aws.wire.calls()
        there = aws.make(FALLBACK_ZONES=aws.ec2.subnets[2])
        made = await there.create(launch(volumes=(volume,)))
        assert aws.ec2.last_launch()["NetworkInterface.1.SubnetId"] == aws.ec2.subnets[2]
        await there.delete(made.id)
        assert aws.ec2.backend.volumes[volume].status == "available"
        await driver.close()
        await there.close()

    async def test_volumes_are_attached_in_order(self, aws: World) -> None:
        volumes = tuple(aws.ec2.make_volume("eu-west-1a") for _ in range(3))
        driver = aws.make()
        made = await driver.create(launch(volumes=volumes))
        devices = [aws.ec2.backend.volumes[one].attachment.device for one in volumes]
        assert devices == ["/dev/xvdb", "/dev/xvdc", "/dev/xvdd"]
        await driver.delete(made.id)
        await driver.close()

    async def test_a_pod_waits_until_its_volumes_are_attached(self, aws: World) -> None:
        """The reference read the state of the first attachment, whosever it was."""
        aws.ec2.disks.attaching = 0.3
        volume = aws.ec2.make_volume("eu-west-1a")
        driver = aws.make()
        begin = asyncio.get_running_loop().time()
        made = await driver.create(launch(volumes=(volume,)))
        assert asyncio.get_running_loop().time() - begin >= 0.3
        await driver.delete(made.id)
        await driver.close()

    async def test_a_volume_that_is_never_attached_costs_the_pod_vm(self, aws: World) -> None:
        aws.ec2.disks.attaching = 1000
        driver = aws.make()
        with pytest.raises(ProviderUnavailable, match="is attached to"):
            await driver.create(launch(volumes=(aws.ec2.make_volume("eu-west-1a"),)))
        assert aws.ec2.ledger.made["instance"] == 1
        assert not aws.ec2.ledger
        await driver.close()

    async def test_the_same_create_again_finds_its_volumes_attached(self, aws: World) -> None:
        """A node that was restarted in between: the volume is in use, by the pod VM that it made."""
        volumes = tuple(aws.ec2.make_volume("eu-west-1a") for _ in range(2))
        first, second = aws.make(), aws.make()
        made = await first.create(launch(volumes=volumes))
        assert (await second.create(launch(volumes=volumes))).id == made.id
        assert aws.wire.calls().count("AttachVolume") == 4
        await second.delete(made.id)
        await first.close()
        await second.close()

    async def test_the_next_pod_waits_for_the_volume_of_the_last_one(self, aws: World) -> None:
        """EC2 lets go of a volume when its instance is terminated, which a new pod may come before."""
        aws.ec2.delays.ending = 0.4
        volume = aws.ec2.make_volume("eu-west-1a")
        driver = aws.make()
        last = await driver.create(launch(volumes=(volume,)))
        ending = asyncio.ensure_future(driver.delete(last.id))
        await asyncio.to_thread(aws.ec2.ended.wait)
        following = await driver.create(launch("podvm-web-99999999", volumes=(volume,)))
        await ending
        await driver.delete(following.id)
        await driver.close()

    async def test_who_waits_for_a_volume_takes_nobodys_place(self, aws: World) -> None:
        aws.ec2.delays.ending = 0.5
        volume = aws.ec2.make_volume("eu-west-1a")
        driver = aws.make(CLOUD_CREATES_AT_ONCE="1")
        last = await driver.create(launch(volumes=(volume,)))
        ending = asyncio.ensure_future(driver.delete(last.id))
        await asyncio.to_thread(aws.ec2.ended.wait)
        waiting = asyncio.ensure_future(driver.create(launch("podvm-web-99999999", volumes=(volume,))))
        other = await driver.create(launch("podvm-web-88888888"))
        assert not waiting.done()
        following = await waiting
        await ending
        for one in (other, following):
            await driver.delete(one.id)
        await driver.close()

    async def test_a_volume_of_a_living_pod_is_refused_and_its_holder_named(self, aws: World) -> None:
        volume = aws.ec2.make_volume("eu-west-1a")
        driver = aws.make()
        holder = await driver.create(launch(volumes=(volume,)))
        before = aws.wire.calls().count("RunInstances")
        with pytest.raises(InvalidRequest, match=f"in-use by {holder.id}"):
            await driver.create(launch("podvm-web-99999999", volumes=(volume,)))
        assert aws.wire.calls().count("RunInstances") == before
        await driver.delete(holder.id)
        await driver.close()


def readable(form: Mapping[str, str], aws: World) -> str:
    return plain("".join(f"{key} = {value}\n" for key, value in sorted(form.items())), aws.ec2)
