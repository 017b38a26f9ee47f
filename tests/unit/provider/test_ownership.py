"""Tags say whose a resource is, and say it again after the trip through any cloud's limits."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import ConfigError
from caa.model.ids import SandboxId
from caa.model.instance import LaunchRequest, Owner
from caa.provider.ownership import Owned, TagLimits, of_owner, of_sandbox, read, refuse_illegal, written

EC2 = TagLimits(key=128, value=256, count=50, reserved=("aws:",))
LABELS = TagLimits(
    key=63, value=63, count=64, key_pattern=r"[a-z][a-z0-9_-]*", value_pattern=r"[a-z0-9_-]*", plain=r"[a-z0-9-]"
)


def request(owner: Owner, sandbox: str = "f" * 64, name: str = "podvm-web-ffffffff") -> LaunchRequest:
    return LaunchRequest(
        name=name,
        sandbox=SandboxId(sandbox),
        owner=owner,
        token="t",
        user_data=b"",
        tags={"purpose": "test"},
        namespace="shop",
        pod="web",
    )


def test_everything_is_named() -> None:
    tags = written(request(Owner(cluster="c1", node="n1")), {"team": "blue"}, limits=EC2)
    assert tags == {
        "team": "blue",
        "purpose": "test",
        "caa-cluster": "c1",
        "caa-node": "n1",
        "caa-sandbox": "f" * 64,
        "caa-name": "podvm-web-ffffffff",
        "caa-namespace": "shop",
        "caa-pod": "web",
    }


def test_ours_win_over_the_operators() -> None:
    assert written(request(Owner(cluster="c1", node="n1")), {"caa-node": "x"}, limits=EC2)["caa-node"] == "n1"


def test_a_sandbox_id_that_is_too_long_is_cut_in_two() -> None:
    tags = written(request(Owner(cluster="c1", node="worker.example.org")), {}, limits=LABELS)
    assert (tags["caa-sandbox"], tags["caa-sandbox-1"]) == ("f" * 63, "f")
    assert tags["caa-node"] == "worker_2eexample_2eorg"


texts = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=128)


@given(cluster=texts, node=texts, sandbox=texts, limits=st.sampled_from([EC2, LABELS]))
def test_what_was_written_is_read(cluster: str, node: str, sandbox: str, limits: TagLimits) -> None:
    owner = Owner(cluster=cluster, node=node)
    tags = written(request(owner, sandbox), {}, limits=limits)
    assert all(len(value) <= limits.value for value in tags.values())
    owned = Owned(owner=owner, name="podvm-web-ffffffff", sandbox=SandboxId(sandbox))
    assert read(tags, limits=limits) == owned
    assert of_owner(owner, limits=limits).items() <= of_sandbox(owned, limits=limits).items() <= tags.items()


def test_what_is_not_ours_is_nobodys() -> None:
    assert read({"Name": "web"}, limits=EC2) is None


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"aws:x": "1"}, "reserved"),
        ({"caa-pod": "1"}, "reserved"),
        ({"k" * 129: "1"}, "at most 128"),
        ({"k": "v" * 257}, "at most 256"),
        ({str(number): "" for number in range(39)}, "39 tags"),
    ],
)
def test_tags_that_the_cloud_refuses_name_the_setting(tags: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        refuse_illegal(tags, limits=EC2)
    assert str(caught.value).startswith("TAGS: ")


def test_tags_that_are_well() -> None:
    refuse_illegal({"team": "blue", "cost centre": "x=1"}, limits=EC2)
