"""What CreateVM's annotations become, with both runtimes' keys and both shims' habits, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InvalidInput
from caa.model.instance import Sizing
from caa.model.pod_annotations import (
    GPU_MODEL,
    GPUS,
    IMAGE,
    INITDATA,
    MACHINE_TYPE,
    MEMORY,
    VCPUS,
    pod_spec,
)

NETNS = "/var/run/netns/cni-1"
CRI = {"io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.sandbox-namespace": "prod"}
GO_SHIM = CRI | {MACHINE_TYPE: "", IMAGE: "", VCPUS: "0", MEMORY: "0", GPUS: "0", GPU_MODEL: "", INITDATA: ""}


def sizing(**annotations: str) -> Sizing:
    keys = {"vcpus": VCPUS, "memory": MEMORY, "gpus": GPUS, "machine": MACHINE_TYPE, "model": GPU_MODEL}
    return pod_spec(CRI | {keys[name]: value for name, value in annotations.items()}, NETNS).sizing


def test_the_go_shim_of_a_pod_that_asks_nothing() -> None:
    spec = pod_spec(GO_SHIM, NETNS)
    assert (spec.pod_name, spec.pod_namespace, spec.netns) == ("web-0", "prod", NETNS)
    assert spec.sizing == Sizing()
    assert (spec.image, spec.initdata) == ("", "")


def test_runtime_rs_of_a_pod_that_asks_nothing() -> None:
    assert pod_spec(GO_SHIM | {VCPUS: "1", MEMORY: "2048"}, NETNS).sizing == Sizing()
    assert sizing(vcpus="1.0", memory="2048") == Sizing()


@pytest.mark.parametrize(
    ("vcpus", "memory", "expected"),
    [("2", "2048", (2, 2048)), ("1", "2049", (1, 2049)), ("1", "0", (1, 0)), ("", "2048", (0, 2048))],
)
def test_only_the_exact_default_pair_counts_as_not_asked(vcpus: str, memory: str, expected: tuple[int, int]) -> None:
    asked = sizing(vcpus=vcpus, memory=memory)
    assert (asked.vcpus, asked.memory_mib) == expected


def test_everything_asked() -> None:
    asked = sizing(vcpus="4", memory="8192", gpus="2", machine="g5.xlarge", model="A10G")
    assert asked == Sizing(instance_type="g5.xlarge", vcpus=4, memory_mib=8192, gpus=2, gpu_model="A10G")


@pytest.mark.parametrize(
    ("text", "vcpus"), [("1.5", 2), ("0.1", 1), ("2.0", 2), ("3.000000001", 4), ("0.0", 0), ("0", 0), ("", 0)]
)
def test_a_part_of_a_cpu_needs_a_whole_one(text: str, vcpus: int) -> None:
    assert sizing(vcpus=text).vcpus == vcpus


@pytest.mark.parametrize(
    "text", ["-1", "junk", "1e3", "nan", "inf", "0x10", " 1", "1 ", "1.", ".5", "1_0", "٣", "9" * 12]
)
@pytest.mark.parametrize("key", [VCPUS, MEMORY, GPUS])
def test_what_is_no_number_is_refused_by_name(key: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=key.replace(".", r"\.")):
        pod_spec(CRI | {key: text}, NETNS)


@pytest.mark.parametrize("key", [MEMORY, GPUS])
def test_half_a_mib_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="whole number"):
        pod_spec(CRI | {key: "1.5"}, NETNS)


@pytest.mark.parametrize(
    ("annotations", "who"),
    [
        ({}, ("", "")),
        ({"io.kubernetes.cri.sandbox-name": "", "io.kubernetes.cri.sandbox-namespace": ""}, ("", "")),
        ({"io.kubernetes.cri-o.KubeName": "db", "io.kubernetes.cri-o.Namespace": "prod"}, ("db", "prod")),
        ({"io.kubernetes.cri.sandbox-name": "k8s_web_prod_3f1c-77_0"}, ("web", "prod")),
        (
            {
                "io.kubernetes.cri.sandbox-name": "k8s_web_prod_3f1c-77_0",
                "io.kubernetes.cri.sandbox-namespace": "prod",
            },
            ("web", "prod"),
        ),
        ({"io.kubernetes.cri-o.SandboxName": "k8s_web-1.x_kube-system_u_12"}, ("web-1.x", "kube-system")),
        (
            {"io.kubernetes.cri.sandbox-name": "", "io.kubernetes.cri-o.KubeName": "db"},
            ("db", ""),
        ),
    ],
)
def test_who_the_pod_is(annotations: dict[str, str], who: tuple[str, str]) -> None:
    spec = pod_spec(annotations, NETNS)
    assert (spec.pod_name, spec.pod_namespace) == who


@pytest.mark.parametrize("name", ["a\nb", "a b", "a/b", "-a", "x" * 254, "a\x00", "../x", "café"])
@pytest.mark.parametrize("key", ["io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"])
def test_a_name_that_is_none_is_refused(key: str, name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a Kubernetes name"):
        pod_spec({key: name}, NETNS)


@pytest.mark.parametrize("netns", ["", "run/netns/x", "/run/\nx", "/run/\x00x", "/" + "x" * 5000])
def test_a_network_namespace_is_required(netns: str) -> None:
    with pytest.raises(InvalidInput, match="networkNamespacePath"):
        pod_spec(GO_SHIM, netns)


@pytest.mark.parametrize("key", [IMAGE, MACHINE_TYPE, GPU_MODEL])
@pytest.mark.parametrize("value", ["x" * 513, "a\nb", "\x1b[31m"])
def test_texts_are_short_and_printable(key: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=key.replace(".", r"\.")):
        pod_spec({key: value}, NETNS)


def test_initdata_is_carried_as_it_is() -> None:
    assert pod_spec({INITDATA: "a\n b = 1\n"}, NETNS).initdata == "a\n b = 1\n"


@given(st.dictionaries(st.sampled_from([*GO_SHIM, "io.kubernetes.cri-o.KubeName"]), st.text(max_size=40)), st.text())
def test_anything_is_a_spec_or_invalid_input(annotations: dict[str, str], netns: str) -> None:
    try:
        spec = pod_spec(annotations, netns)
    except InvalidInput:
        return
    assert spec.netns.startswith("/")
    assert min(spec.sizing.vcpus, spec.sizing.memory_mib, spec.sizing.gpus) >= 0
