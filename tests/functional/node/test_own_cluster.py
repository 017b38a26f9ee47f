"""The name a node gives itself when the operator gave the cluster none."""

import pytest

from caa.errors import StateError
from caa.node.system import own_cluster


def test_it_is_made_once_and_differs_between_nodes(tmp_path):
    one, other = own_cluster(tmp_path / "a"), own_cluster(tmp_path / "b")
    assert one.startswith("node-")
    assert one == own_cluster(tmp_path / "a")
    assert one != other
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["cluster-id"]


def test_a_state_directory_that_is_a_file(tmp_path):
    (tmp_path / "state").touch()
    with pytest.raises(StateError, match="CAA_CLUSTER_ID"):
        own_cluster(tmp_path / "state")
