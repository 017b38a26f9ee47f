"""The demo's pod with the drivers of the public clouds: official SDK, fake cloud, local pod VM, metadata service."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import PIPE

import boto3
import pytest

from caa.model.ids import SandboxId, instance_name
from caa.testing.demo import clouds, world
from caa.testing.demo.clouds import Cloud
from caa.testing.demo.daemons import Daemons, Paths
from caa.testing.shim.kinds import PodOptions
from caa.testing.shim.shim import Shim

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("runc", "nft", "ip", "unshare", "busybox"),
]
DEMO = [sys.executable, "-m", "caa", "demo"]
IDS = {
    "aws": r"i-[0-9a-f]{17}",
    "azure": r"/subscriptions/[^/]+/resourceGroups/pods/.*/virtualMachines/podvm-pod0-[0-9a-f]{8}",
    "gcp": r"podvm-pod0-[0-9a-f]{8}",
}


@pytest.mark.parametrize(("cloud", "shim"), [("aws", "go"), ("azure", "runtime-rs"), ("gcp", "go")])
def test_one_pod_comes_and_goes_in_a_cloud(cloud: str, shim: str) -> None:
    command = [*DEMO, "--json", "--provider", cloud, "--shim", shim]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["ok"], result["provider"], result["left_over"]) == (True, cloud, {})
    assert result["exec"] == {"stdin_bytes": 100_000, "exit_code": 7, "hostname": "pod0"}
    assert result["network"]["user_data_from"] == cloud
    assert re.fullmatch(IDS[cloud], result["network"]["instance_id"])
    assert result["network"]["copied_mib"] == 50
    assert result["survived"]["lines_missing"] == 0
    assert result["timings_ms"]["  node: launch"] > 1000  # the fake takes its time, as a cloud does


@pytest.fixture
async def aws(own_namespaces: None, paths: Paths) -> AsyncIterator[Cloud]:
    """Daemons of a worker in AWS, where nothing is alive at the end."""
    async with clouds.opened("aws", paths, image=None, environ=os.environ) as cloud:
        daemons = Daemons(paths, "aws", cloud.environ)
        await daemons.start()
        try:
            yield cloud
        finally:
            await daemons.stop()
        assert not await asyncio.to_thread(cloud.left)


async def test_an_instance_that_somebody_stops_in_the_cloud(aws: Cloud, paths: Paths) -> None:
    """Its pod VM is gone at once, its pod fails, and the node removes the instance, which would cost money."""
    await asyncio.to_thread(world.attach, "pod0", f"{world.SUBNET}.10")
    options = PodOptions(name="pod0", namespace="test", netns=str(world.NETNS / "pod0"))
    pod = await Shim(str(paths.hypervisor)).start(options)
    instance = await asyncio.to_thread(aws.identity, instance_name("pod0", SandboxId(pod.sandbox_id)))
    groups = world.groups_of(instance)
    assert groups
    await asyncio.to_thread(_stop, instance, aws.environ["AWS_ENDPOINT_URL_EC2"])
    await asyncio.wait_for(pod.failed.wait(), 30)
    await asyncio.wait_for(pod.ended.wait(), 5)
    assert not pod.stop_errors
    assert not await asyncio.to_thread(aws.left)
    assert not [group for group in groups if group.exists()]
    await asyncio.to_thread(world.detach, "pod0")


def _stop(instance: str, url: str) -> None:
    keys = {"aws_access_key_id": "operator", "aws_secret_access_key": "operator"}
    boto3.client("ec2", endpoint_url=url, region_name="eu-west-1", **keys).stop_instances(InstanceIds=[instance])


def test_a_signal_ends_the_cloud_too() -> None:
    demo = subprocess.Popen([*DEMO, "--provider", "aws", "--keep"], stdout=PIPE, stderr=PIPE, text=True)
    assert demo.stdout is not None
    assert "Starting 1 pod(s)" in demo.stdout.readline()
    time.sleep(2.0)  # its instance is pending or boots
    folder = _folder(demo.pid)
    assert b"tests.fakes.aws" in _running(folder)
    demo.send_signal(signal.SIGTERM)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 130, out + err
    assert out.splitlines()[-1] == "demo: interrupted, all removed"
    assert not _running(folder)
    assert not Path(folder).exists()


def test_a_cloud_that_nobody_knows() -> None:
    done = subprocess.run([*DEMO, "--provider", "nonsense"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "'nonsense' is not one of 'local', 'libvirt', 'aws', 'azure', 'gcp'" in done.stderr


def _folder(demo: int) -> str:
    """The demo's own folder: an argument of its child."""
    (child,) = Path(f"/proc/{demo}/task/{demo}/children").read_text().split()
    words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
    return words[words.index("--inside") + 1]


def _running(folder: str) -> bytes:
    """The command lines of what runs with that folder: the demo, the fake cloud, the pod VMs."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it ended while we looked
            continue
        found += line if folder.encode() in line else b""
    return found
