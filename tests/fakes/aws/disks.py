"""Data volumes as EC2 has them and moto does not: attaching takes a while, an ending instance holds what it has."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

from tests.fakes.aws.model import NAMESPACE, Refused

_TAG = f"{{{NAMESPACE}}}"


class Disks:
    """What is attached since when. `attaching` is how long it takes, in seconds; `state_of` tells an instance's."""

    def __init__(self, backend: Any, state_of: Callable[[str], str]) -> None:
        self.attaching = 0.0
        self._backend = backend
        self._state_of = state_of
        self._since: dict[str, float] = {}
        self._held: dict[str, str] = {}  # volume -> ending instance

    def refuse(self, form: Mapping[str, str]) -> None:
        """Raise `Refused` for an AttachVolume that EC2 would refuse."""
        name, wanted = form.get("VolumeId", ""), form.get("InstanceId", "")
        volume = self._backend.volumes.get(name)
        if volume is None:
            raise Refused("InvalidVolume.NotFound", f"The volume '{name}' does not exist.")
        state = self._state_of(wanted)
        if not state:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{wanted}' does not exist")
        if volume.attachment or self.holder(name):
            raise Refused("VolumeInUse", f"{name} is already attached to an instance")
        if state not in ("running", "stopped"):
            raise Refused("IncorrectState", f"Instance '{wanted}' is not 'running'.")
        if volume.zone.name != self._backend.get_instance(wanted).placement.zone:
            raise Refused("InvalidVolume.ZoneMismatch", f"The volume '{name}' is not in the zone of '{wanted}'")

    def attached(self, volume: str) -> None:
        """An AttachVolume went well."""
        self._since[volume] = time.monotonic()

    def held_by(self, instances: set[str]) -> dict[str, str]:
        """The volumes that stay when these instances end, each with its instance."""
        return {
            volume.id: volume.attachment.instance.id
            for volume in self._backend.volumes.values()
            if volume.attachment and volume.attachment.instance.id in instances and volume.id in self._since
        }

    def hold(self, held: Mapping[str, str]) -> None:
        """These are in use until their instance is terminated."""
        self._held |= held

    def holder(self, volume: str) -> str:
        """The ending instance that keeps the volume; "" when none does."""
        holder = self._held.get(volume, "")
        return holder if holder and self._state_of(holder) == "shutting-down" else ""

    def edit(self, root: ElementTree.Element) -> None:
        """Make an answer to DescribeVolumes say so."""
        for item in root.iter(f"{_TAG}item"):
            name = item.findtext(f"{_TAG}volumeId", "")
            if item.find(f"{_TAG}size") is None:
                continue
            if holder := self.holder(name):
                _set(item, "status", "in-use")
                attachment = ElementTree.SubElement(_child(item, "attachmentSet"), f"{_TAG}item")
                for key, value in (("volumeId", name), ("instanceId", holder), ("status", "attached")):
                    _set(attachment, key, value)
            elif time.monotonic() - self._since.get(name, 0.0) < self.attaching:
                for one in _child(item, "attachmentSet"):
                    _set(one, "status", "attaching")


def _child(item: ElementTree.Element, name: str) -> ElementTree.Element:
    found = item.find(f"{_TAG}{name}")
    return ElementTree.SubElement(item, f"{_TAG}{name}") if found is None else found


def _set(item: ElementTree.Element, name: str, value: str) -> None:
    _child(item, name).text = value
