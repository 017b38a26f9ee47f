"""The whole user data of one pod VM: which files, in which order, and whether they fit. Pure."""

from dataclasses import dataclass, field

from caa.userdata import budget as budgets
from caa.userdata import cloudconfig, forwarder, initdata, paths
from caa.userdata.cloudconfig import File


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What goes to the guest. `initdata` is plain TOML and `registry_auth` an auth.json, each "" for none."""

    forwarder: forwarder.ForwarderConfig
    initdata: str = field(default="", repr=False)
    registry_auth: str = field(default="", repr=False)
    scratch_space: bool = False


def files(parts: Parts) -> tuple[File, ...]:
    """The files in the reference's order: apf.json, auth.json, initdata, scratch-space marker."""
    listed = [File(paths.FORWARDER, forwarder.render(parts.forwarder))]
    if parts.registry_auth:
        listed.append(File(paths.REGISTRY_AUTH, parts.registry_auth))
    if parts.initdata:
        listed.append(File(paths.INITDATA, initdata.encode(parts.initdata)))
    if parts.scratch_space:
        listed.append(File(paths.SCRATCH_MARKER))
    return tuple(listed)


def render(parts: Parts, budget: budgets.Budget) -> bytes:
    """The cloud-config document, not yet base64; raises `UserDataTooLarge` when the provider would not take it."""
    listed = files(parts)
    document = cloudconfig.render(listed)
    budgets.check(document, listed, budget=budget)
    return document
