"""The table of `reference/providers.md` 2 where it is right, four failures of a binary search, the error texts."""

import re
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import Code, InstanceTypeError, Misconfigured
from caa.model.instance import InstanceType, Sizing, Tee
from caa.provider.choose import choose, fallbacks, first_fit, in_order, offered, priced, tee_of


def kind(name: str, vcpus: int, memory_mib: int, gpus: int = 0) -> InstanceType:
    return InstanceType(name=name, vcpus=vcpus, memory_mib=memory_mib, gpus=gpus)


T2 = [kind("t2.small", 2, 6), kind("t2.medium", 4, 8), kind("t2.large", 8, 16)]
WITH_GPU = [kind("t2.small", 2, 6), kind("p2.medium", 4, 8, 2), kind("t2.large", 8, 16)]
GPUS = [kind("small-gpu", 2, 4096, 1), kind("medium-gpu", 4, 8192, 2)]
P3 = [kind("p3.xlarge", 4, 16, 1), kind("p3.2xlarge", 8, 32, 2), kind("m5.large", 2, 8)]
C6_R6 = [kind("c6a.2xlarge", 8, 16384), kind("r6a.xlarge", 4, 32768)]
T3 = [kind("t3.2xlarge", 8, 32), kind("t3.large", 2, 8), kind("t3.xlarge", 4, 16)]
AWS = [
    kind("m6a.large", 2, 8192),
    kind("c6a.xlarge", 4, 8192),
    kind("r6a.large", 2, 16384),
    kind("m6a.xlarge", 4, 16384),
    kind("c6a.2xlarge", 8, 16384),
]


@pytest.mark.parametrize(
    ("asked", "types", "wanted"),
    [
        (Sizing(instance_type="t2.small"), T2, "t2.small"),
        (Sizing(), [kind("t2.medium", 4, 8)], "t2.medium"),
        (Sizing(), [], "t2.medium"),
        (Sizing(instance_type="t2.medium"), [], "t2.medium"),
        (Sizing(vcpus=2, memory_mib=6), T2, "t2.small"),
        (Sizing(vcpus=4, memory_mib=8), T2, "t2.medium"),
        (Sizing(vcpus=4, memory_mib=16), T2, "t2.large"),
        (Sizing(vcpus=4, memory_mib=8), WITH_GPU, "t2.large"),
        (Sizing(gpus=1, vcpus=2, memory_mib=4096), GPUS, "small-gpu"),
        (Sizing(gpus=1, vcpus=3, memory_mib=6144), GPUS, "medium-gpu"),
        (Sizing(gpus=2), GPUS, "medium-gpu"),
        (Sizing(instance_type="m5.large", gpus=2), P3, "m5.large"),
        (Sizing(instance_type="t3.large", vcpus=4, memory_mib=16), T3, "t3.large"),
        (Sizing(gpus=1, vcpus=4, memory_mib=16), P3, "p3.xlarge"),
        (Sizing(vcpus=4, memory_mib=16), T3, "t3.xlarge"),
        # One value alone is honoured; the reference fell back to its default without a word.
        (Sizing(vcpus=4), AWS, "c6a.xlarge"),
        (Sizing(memory_mib=12288), AWS, "r6a.large"),
    ],
)
def test_the_table(asked: Sizing, types: list[InstanceType], wanted: str) -> None:
    assert choose(asked, types, default="t2.medium") == wanted


@pytest.mark.parametrize(
    ("asked", "types", "wanted"),
    [
        (Sizing(vcpus=4, memory_mib=8192), AWS, "c6a.xlarge"),
        (
            Sizing(vcpus=8, memory_mib=16384),
            [kind("c6a.2xlarge", 8, 16384), kind("r6a.xlarge", 4, 32768)],
            "c6a.2xlarge",
        ),
        (Sizing(vcpus=4, memory_mib=8192), [kind("c7", 8, 8192), kind("r7", 2, 16384), kind("m7", 16, 32768)], "c7"),
        (
            Sizing(vcpus=16, memory_mib=16384, gpus=1),
            [kind("gA", 16, 32768, 1), kind("gB", 8, 65536, 1), kind("gC", 4, 16384, 2)],
            "gA",
        ),
    ],
)
def test_what_a_binary_search_gets_wrong(asked: Sizing, types: list[InstanceType], wanted: str) -> None:
    assert choose(asked, types, default="") == wanted


@pytest.mark.parametrize(
    ("asked", "types", "text"),
    [
        (
            Sizing(instance_type="t2.small"),
            [kind("t2.medium", 4, 8)],
            'requested instance type ("t2.small") is not part of supported instance types list',
        ),
        (
            Sizing(instance_type="t2.small"),
            [],
            'requested instance type ("t2.small") is not part of supported instance types list',
        ),
        (
            Sizing(vcpus=2, memory_mib=18432),
            AWS,
            (
                "failed to get instance type based on vCPU and memory annotations: "
                "no instance type found for the given vcpus (2) and memory (18432)"
            ),
        ),
        (
            Sizing(vcpus=3, memory_mib=12288),
            AWS[:3],
            "no instance type found for the given vcpus (3) and memory (12288)",
        ),
        (Sizing(vcpus=4, memory_mib=32), T2, "no instance type found for the given vcpus (4) and memory (32)"),
        (Sizing(gpus=4, vcpus=8, memory_mib=16384), GPUS, "no instance type found for the given gpus (4)"),
        (Sizing(gpus=1, vcpus=2, memory_mib=4096), [], "no instance type found for the given gpus (1)"),
        (Sizing(vcpus=-1), T2, "default_vcpus is -1"),
        (Sizing(memory_mib=-5), T2, "default_memory is -5"),
        (Sizing(gpus=-2), T2, "default_gpus is -2"),
    ],
)
def test_the_errors_operators_know(asked: Sizing, types: list[InstanceType], text: str) -> None:
    with pytest.raises(InstanceTypeError, match=re.escape(text)) as caught:
        choose(asked, types, default="t2.medium")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert not caught.value.retryable


def test_an_error_names_what_is_allowed() -> None:
    with pytest.raises(InstanceTypeError, match=r"allowed: t2\.medium, t3\.large, t3\.xlarge, t3\.2xlarge$"):
        choose(Sizing(instance_type="x"), T3, default="t2.medium")


def test_the_order_is_stable_whatever_the_input_order() -> None:
    assert [one.name for one in in_order([T2[2], T2[0], T2[1]])] == ["t2.small", "t2.medium", "t2.large"]
    twins = [kind("b", 2, 4), kind("a", 2, 4)]
    assert choose(Sizing(vcpus=1), twins, default="") == choose(Sizing(vcpus=1), twins[::-1], default="") == "a"


TYPES = st.lists(
    st.builds(
        InstanceType,
        name=st.sampled_from([f"t{n}" for n in range(40)]),
        vcpus=st.integers(1, 64),
        memory_mib=st.integers(1, 64),
        gpus=st.integers(0, 3),
    ),
    max_size=12,
)
ASKED = st.builds(Sizing, vcpus=st.integers(0, 64), memory_mib=st.integers(0, 64), gpus=st.integers(0, 3))


@given(asked=ASKED, types=TYPES)
def test_a_fit_is_found_exactly_when_one_exists(asked: Sizing, types: list[InstanceType]) -> None:
    def large_enough(one: InstanceType) -> bool:
        gpus = one.gpus == 0 if asked.gpus == 0 else one.gpus >= asked.gpus
        return gpus and one.vcpus >= asked.vcpus and one.memory_mib >= asked.memory_mib

    fit = first_fit(asked, types)
    fitting = [one for one in types if large_enough(one)]
    if fit is None:
        assert not fitting
    else:
        assert fit in fitting
        assert (fit.gpus, fit.memory_mib) == min((one.gpus, one.memory_mib) for one in fitting)


PLAIN = InstanceType(name="m5.large", vcpus=2, memory_mib=8192)
SNP = InstanceType(name="m6a.large", vcpus=2, memory_mib=8192, tees=frozenset({Tee.SNP}))
BIG = InstanceType(name="m6a.xlarge", vcpus=4, memory_mib=16384, tees=frozenset({Tee.SNP}))


def test_fallbacks_are_those_that_fit_in_the_operators_order() -> None:
    wanted, types = ["m6a.xlarge", "unknown", "m5.large", "m6a.large"], [PLAIN, SNP, BIG]
    tried = partial(fallbacks, "m6a.large", wanted, types=types, tee=Tee.NONE)
    assert tried(sizing=Sizing(vcpus=4)) == ["m6a.large", "m6a.xlarge"]
    assert tried(sizing=Sizing()) == ["m6a.large", "m6a.xlarge", "m5.large"]
    assert tried(sizing=Sizing(instance_type="m6a.large")) == ["m6a.large"]


def test_a_fallback_of_a_confidential_pod_has_the_same_tee() -> None:
    wanted, types = ["m5.large", "m6a.xlarge"], [PLAIN, SNP, BIG]
    assert fallbacks("m6a.large", wanted, sizing=Sizing(), types=types, tee=Tee.SNP) == ["m6a.large", "m6a.xlarge"]
    assert fallbacks("m6a.large", wanted, sizing=Sizing(), types=types, tee=Tee.TDX) == ["m6a.large"]


def test_a_confidential_pod_gets_only_types_with_a_tee() -> None:
    assert offered([PLAIN, SNP], confidential=True) == [SNP]
    assert offered([PLAIN, SNP], confidential=False) == [PLAIN, SNP]
    assert tee_of("m6a.large", [PLAIN, SNP]) is Tee.SNP


@pytest.mark.parametrize(("name", "why"), [("m5.large", "has no TEE here"), ("t9.huge", "catalogue")])
def test_a_confidential_pod_vm_never_becomes_an_ordinary_one(name: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why) as caught:
        tee_of(name, [PLAIN, SNP])
    assert "DISABLECVM" in str(caught.value)


def test_where_prices_are_known_the_cheapest_that_fits_is_taken_and_one_without_a_price_last() -> None:
    """The size alone says little of the price: an r6a.large has fewer vCPUs and costs more than a c6a.xlarge's half."""
    types = priced(AWS, {"m6a.xlarge": 0.17, "C6A.2XLARGE": 0.15})
    assert choose(Sizing(vcpus=4), types, default="m6a.large") == "c6a.2xlarge"
    assert choose(Sizing(vcpus=2), types, default="m6a.large") == "c6a.2xlarge"
    assert choose(Sizing(memory_mib=16384, vcpus=16), [*types, kind("big", 16, 32768)], default="x") == "big"
    assert [one.name for one in in_order(priced(T2, {}))] == [one.name for one in in_order(T2)]
