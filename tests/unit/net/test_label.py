"""What is written on a tunnel is read again; what others write is not taken for ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.model.ids import SandboxId
from caa.model.network import Whose
from caa.net.label import label, read

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", fullmatch=True)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True)


@given(IDS, NAMES, NAMES)
def test_what_is_written_is_read(sandbox: str, pod: str, namespace: str) -> None:
    whose = Whose(sandbox=SandboxId(sandbox), pod_name=pod, pod_namespace=namespace)
    written = label(whose)
    assert len(written.encode()) <= 255
    fits = len(f"caa {sandbox} {namespace}/{pod}") <= 255
    assert read(written) == (whose if fits else Whose(sandbox=whose.sandbox))


def test_names_that_do_not_fit_are_left_out() -> None:
    whose = Whose(sandbox=SandboxId("a" * 64), pod_name="p" * 253, pod_namespace="n")
    assert read(label(whose)) == Whose(sandbox=whose.sandbox)


@pytest.mark.parametrize("pod", ["", "web"])
def test_a_pod_without_a_namespace_has_no_name(pod: str) -> None:
    assert label(Whose(sandbox=SandboxId("x"), pod_name=pod)) == "caa x"


@pytest.mark.parametrize(
    "alias",
    ["", "caa", "caa ", "caa ../x", "caa x y", "caa x a/b/c", "caa x A/b", "caa x n/p\n", "other x n/p", "caa  x"],
)
def test_what_is_none_of_ours(alias: str) -> None:
    assert read(alias) is None
