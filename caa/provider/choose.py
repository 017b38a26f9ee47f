"""Which instance type a pod gets: a pure function of its annotations and the operator's list. Nothing else lives here.

The order is that of the reference, (GPUs, memory, vCPUs), made stable by the name; where prices are known, they come
first. The search is linear. A binary
search over that order (the reference's) misses fits, because "large enough" is not monotone over it
(`reference/providers.md` 2: 3 % of the requests answered wrongly).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from caa.errors import InstanceTypeError, Misconfigured
from caa.model.instance import InstanceType, Sizing, Tee


def choose(sizing: Sizing, types: Sequence[InstanceType], *, default: str) -> str:
    """The name of the instance type for a pod that asks for `sizing`; memory in MiB.

    `types` are the types the operator allows, in any order; `default` is always allowed. A type asked for by name
    wins over every number, even when it is smaller. A single number (only vCPUs, only memory) is honoured. Without
    GPUs asked for, types that have GPUs are left out: they cost the most. Nothing asked for is the default.

    Raises `InstanceTypeError`; the texts are those that operators and the reference's tests know
    (`reference/user-pains.md` 5.1), followed by what is allowed.
    """
    _refuse_negative(sizing)
    if sizing.instance_type:
        return _allowed(sizing.instance_type, types, default=default)
    if not (sizing.gpus or sizing.vcpus or sizing.memory_mib):
        return default
    fit = first_fit(sizing, types)
    if fit is None:
        raise InstanceTypeError(f"{_no_fit(sizing)}; {_allowed_names(types, default)}")
    return fit.name


def first_fit(sizing: Sizing, types: Iterable[InstanceType]) -> InstanceType | None:
    """The first type, in our order, that is large enough; None when there is none."""
    return next((candidate for candidate in in_order(types) if _fits(sizing, candidate)), None)


def fallbacks(
    chosen: str, wanted: Iterable[str], *, sizing: Sizing, types: Iterable[InstanceType], tee: Tee
) -> list[str]:
    """The types to try in turn: the chosen one, then those of `wanted` (FALLBACK_TYPES) that fit the pod.

    With a `tee` only those that have the same: a confidential pod VM never becomes an ordinary one. A pod that asked
    for its type by name gets no other.
    """
    if sizing.instance_type:
        return [chosen]
    by_name = {one.name: one for one in types if tee is Tee.NONE or tee in one.tees}
    fitting = [name for name in wanted if name in by_name and _fits(sizing, by_name[name])]
    return list(dict.fromkeys([chosen, *fitting]))


def offered(types: Iterable[InstanceType], *, confidential: bool) -> list[InstanceType]:
    """The types that pods may get: with `confidential` only those with a TEE, so that none is chosen without."""
    return [one for one in types if one.tees or not confidential]


def priced(types: Iterable[InstanceType], prices: Mapping[str, float]) -> list[InstanceType]:
    """The types with the operator's prices (INSTANCE_TYPE_PRICES) where there is one; letter case does not count."""
    known = {name.lower(): price for name, price in prices.items()}
    return [replace(one, price=known.get(one.name.lower(), one.price)) for one in types]


def tee_of(chosen: str, types: Iterable[InstanceType]) -> Tee:
    """The TEE of the chosen type. Raises `Misconfigured`: a confidential pod VM never becomes an ordinary one."""
    found = next((one for one in types if one.name == chosen), None)
    if found is None or not found.tees:
        why = "has no TEE here" if found else "is not in the cloud's catalogue, so nothing proves that it has a TEE"
        raise Misconfigured(
            f"DISABLECVM is false, and the instance type {chosen} {why}: "
            "choose a type with a TEE, or set DISABLECVM=true"
        )
    return min(found.tees)


def in_order(types: Iterable[InstanceType]) -> list[InstanceType]:
    """Types from the cheapest to the dearest, those without a price last; then by GPUs, memory, vCPUs, and by name."""
    return sorted(
        types,
        key=lambda one: (one.price is None, one.price or 0.0, one.gpus, one.memory_mib, one.vcpus, one.name),
    )


def _fits(sizing: Sizing, candidate: InstanceType) -> bool:
    gpus_fit = candidate.gpus >= sizing.gpus if sizing.gpus else candidate.gpus == 0
    return gpus_fit and candidate.vcpus >= sizing.vcpus and candidate.memory_mib >= sizing.memory_mib


def _allowed(name: str, types: Sequence[InstanceType], *, default: str) -> str:
    if name == default or any(one.name == name for one in types):
        return name
    raise InstanceTypeError(
        f'requested instance type ("{name}") is not part of supported instance types list; '
        f"{_allowed_names(types, default)}"
    )


def _refuse_negative(sizing: Sizing) -> None:
    for annotation, number in (
        ("default_vcpus", sizing.vcpus),
        ("default_memory", sizing.memory_mib),
        ("default_gpus", sizing.gpus),
    ):
        if number < 0:
            raise InstanceTypeError(f"the annotation {annotation} is {number}; it has to be 0 (not asked) or more")


def _no_fit(sizing: Sizing) -> str:
    if sizing.gpus:
        return (
            "failed to get instance type based on GPU, vCPU and memory annotations: no instance type found for the "
            f"given gpus ({sizing.gpus}), vcpus ({sizing.vcpus}) and memory ({sizing.memory_mib})"
        )
    return (
        "failed to get instance type based on vCPU and memory annotations: no instance type found for the given "
        f"vcpus ({sizing.vcpus}) and memory ({sizing.memory_mib})"
    )


def _allowed_names(types: Iterable[InstanceType], default: str) -> str:
    names = [one.name for one in in_order(types)]
    if default not in names:
        names.insert(0, default)
    return f"allowed: {', '.join(names)}"
