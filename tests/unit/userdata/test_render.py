"""The whole document, its order, and the budget."""

import base64
import re

import pytest

from caa.errors import UserDataTooLarge
from caa.model.network import PodNetwork
from caa.userdata import forwarder, initdata, paths
from caa.userdata.budget import Budget
from caa.userdata.forwarder import ForwarderConfig
from caa.userdata.render import Parts, files, render

ALL = (paths.FORWARDER, paths.REGISTRY_AUTH, paths.INITDATA, paths.SCRATCH_MARKER)


def _parts(config: ForwarderConfig) -> Parts:
    return Parts(forwarder=config, initdata=initdata.DUMMY, registry_auth='{"auths":{}}', scratch_space=True)


def test_files_come_in_the_reference_s_order_and_are_allowed_in_the_guest(config: ForwarderConfig) -> None:
    assert tuple(file.path for file in files(_parts(config))) == ALL
    assert set(ALL) <= paths.FROM_USER_DATA
    assert [file.path for file in files(Parts(forwarder=config))] == [paths.FORWARDER]


def test_the_guest_reads_what_was_meant(config: ForwarderConfig, read_strictly) -> None:
    read = read_strictly(render(_parts(config), Budget()))
    assert forwarder.parse(read[paths.FORWARDER]).tls == config.tls
    assert initdata.decode(read[paths.INITDATA]) == initdata.DUMMY
    assert read[paths.REGISTRY_AUTH] == '{"auths":{}}'
    assert read[paths.SCRATCH_MARKER] == ""


def test_the_limit_is_exact_before_and_after_base64(config: ForwarderConfig) -> None:
    document = render(_parts(config), Budget())
    encoded = len(base64.b64encode(document))
    for size, in_base64 in ((len(document), False), (encoded, True)):
        assert render(_parts(config), Budget(size, in_base64)) == document
        with pytest.raises(UserDataTooLarge):
            render(_parts(config), Budget(size - 1, in_base64))


def test_the_error_lists_the_files_the_largest_first(config: ForwarderConfig) -> None:
    large = Parts(forwarder=config, registry_auth="x" * 12_000)
    with pytest.raises(UserDataTooLarge) as caught:
        render(large, Budget(12_288))
    assert "the provider allows 12288" in str(caught.value)
    assert re.search(r"by file: /run/peerpod/auth\.json 12\d\d\d, /run/peerpod/apf\.json \d+;", str(caught.value))


def test_the_sizes_add_up(config: ForwarderConfig) -> None:
    listed = files(_parts(config))
    assert sum(file.size for file in listed) + len("#cloud-config\nwrite_files:\n") == len(
        render(_parts(config), Budget())
    )


def test_secrets_are_in_no_repr(config: ForwarderConfig, network: PodNetwork) -> None:
    assert network.interface == "eth0"
    assert "auths" not in repr(_parts(config))
