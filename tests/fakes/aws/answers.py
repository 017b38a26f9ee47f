"""moto's answers made EC2's: states of now, CPU options, addresses that come late, what is not seen yet."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from moto.ec2.models.instance_types import INSTANCE_TYPES

from tests.fakes.aws import model
from tests.fakes.wire import Reply

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
_TAG = f"{{{model.NAMESPACE}}}"
ElementTree.register_namespace("", model.NAMESPACE)


@dataclass
class Known:
    """What the front remembers of one instance."""

    born: float
    cpu: dict[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    ends: float | None = None


def vcpus(kind: str) -> int:
    """How many a type has."""
    return int(INSTANCE_TYPES[kind]["VCpuInfo"]["DefaultVCpus"])


def root_of(reply: Reply) -> ElementTree.Element:
    """The document of an answer."""
    return ElementTree.fromstring(reply.body)


def edited(root: ElementTree.Element, status: int = 200) -> Reply:
    """A document as an answer."""
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return Reply(status=status, body=text, headers={"Content-Type": "text/xml"})


def emptied(reply: Reply) -> Reply:
    """The same answer without any instance."""
    root = root_of(reply)
    for parent in [*root.iter(f"{_TAG}instancesSet"), *root.iter(f"{_TAG}reservationSet")]:
        parent.clear()
    return edited(root, reply.status)


def edit_images(root: ElementTree.Element, mappings: Mapping[str, list[tuple[str, str]]]) -> None:
    """Give images the disks that a test wants."""
    for item in root.iter(f"{_TAG}item"):
        disks = item.find(f"{_TAG}blockDeviceMapping")
        if disks is None or item.findtext(f"{_TAG}imageId", "") not in mappings:
            continue
        disks.clear()
        for device, kind in mappings[item.findtext(f"{_TAG}imageId", "")]:
            one = ElementTree.SubElement(disks, f"{_TAG}item")
            ElementTree.SubElement(one, f"{_TAG}deviceName").text = device
            if kind == "ebs":
                ElementTree.SubElement(ElementTree.SubElement(one, f"{_TAG}ebs"), f"{_TAG}volumeSize").text = "8"
            else:
                ElementTree.SubElement(one, f"{_TAG}virtualName").text = kind


def edit_instances(
    root: ElementTree.Element, instances: Mapping[str, Known], backend: Any, *, unseen: float, no_address: float
) -> None:
    """`unseen` and `no_address` are the ages in seconds up to which an instance is not listed, or has no address."""
    for parent in list(root.iter(f"{_TAG}instancesSet")):
        for item in list(parent):
            name = item.findtext(f"{_TAG}instanceId", "")
            if name not in instances:
                continue
            age = time.monotonic() - instances[name].born
            if root.tag.endswith("DescribeInstancesResponse") and age < unseen:
                parent.remove(item)
                continue
            _edit(item, instances[name], backend.get_instance(name), addressed=age >= no_address)


def _edit(item: ElementTree.Element, known: Known, instance: Any, *, addressed: bool) -> None:
    state = item.find(f"{_TAG}instanceState")
    assert state is not None
    for name, value in (("name", instance.state), ("code", str(CODES[instance.state]))):
        child = state.find(f"{_TAG}{name}")
        assert child is not None
        child.text = value
    options = ElementTree.SubElement(item, f"{_TAG}cpuOptions")
    for name, value in (("coreCount", str(vcpus(instance.instance_type))), ("threadsPerCore", "1")):
        ElementTree.SubElement(options, f"{_TAG}{name}").text = value
    if known.cpu:
        ElementTree.SubElement(options, f"{_TAG}amdSevSnp").text = known.cpu.get("AmdSevSnp", "")
    late = {"association", "ipAddress", "dnsName"} if instance.state == "pending" else set()
    if not addressed:
        late |= {"privateIpAddress", "privateIpAddressesSet", "networkInterfaceSet"}
    for parent in list(item.iter()):
        for child in list(parent):
            if child.tag.removeprefix(_TAG) in late:
                parent.remove(child)
