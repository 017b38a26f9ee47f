"""Names, records and command lines of local pod VMs."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InvalidRequest, ProviderError
from caa.model.ids import SandboxId
from caa.provider.contract import LaunchRequest, Owner
from providers.local import translate
from providers.local.translate import Hierarchy, Record, Site

SITE = Site(
    state_dir=Path("/var/lib/caa/local"),
    subnet=IPv4Network("10.199.0.0/28"),
    bridge="caa-local0",
    agent_command=(),
    python="/venv/bin/python",
)
REQUEST = LaunchRequest(
    name="podvm-web-0a1b2c3d",
    sandbox=SandboxId("0a1b2c3d"),
    owner=Owner(cluster="c", node="n"),
    token="t",
    user_data=b"secret",
)
HYBRID = """\
25 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 29 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
35 30 0:28 / /var/lib/other/sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 30 0:28 / /sys/fs/cgroup/memory/deeper rw,relatime - cgroup cgroup rw,memory
nonsense
"""


def test_the_hierarchies_of_a_hybrid_system() -> None:
    assert translate.hierarchies(HYBRID) == (
        Hierarchy("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
        Hierarchy("/sys/fs/cgroup/memory", "cgroup", "memory"),
        Hierarchy("/sys/fs/cgroup/systemd", "cgroup", "none,name=systemd"),
        Hierarchy("/sys/fs/cgroup/unified", "cgroup2", ""),
    )


def test_cgroup_v2_alone_is_one_hierarchy() -> None:
    line = "30 29 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
    assert translate.hierarchies(line) == (Hierarchy("/sys/fs/cgroup", "cgroup2", ""),)


def test_addresses_leave_out_the_bridge() -> None:
    addresses = list(SITE.guest_addresses())
    assert str(SITE.gateway) == "10.199.0.1/28"
    assert addresses[0] == IPv4Address("10.199.0.2")
    assert len(addresses) == 13
    assert str(SITE.interface(addresses[0])) == "10.199.0.2/28"


def test_two_state_directories_share_no_name() -> None:
    other = replace(SITE, state_dir=Path("/elsewhere"))
    assert SITE.cgroup_parent != other.cgroup_parent
    assert SITE.link_name("a") != other.link_name("a") != SITE.link_name("b")
    assert len(SITE.link_name("a" * 63)) <= 15


def test_a_record_becomes_an_instance() -> None:
    record = translate.new_record(REQUEST, 5.0)
    assert translate.instance(record).addresses == ()
    made = translate.instance(replace(record, address=IPv4Address("10.199.0.2")))
    assert made.id == made.name == REQUEST.name
    assert made.sandbox == REQUEST.sandbox
    assert made.addresses == (IPv4Address("10.199.0.2"),)
    assert made.created_at == 5.0


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a/b", "..", "a.b", "ü", "a" * 64, "a\n"])
def test_a_name_that_is_no_host_name_is_refused(name: str) -> None:
    assert not translate.valid_name(name)
    with pytest.raises(InvalidRequest, match="is not valid"):
        translate.new_record(replace(REQUEST, name=name), 0.0)


@given(
    record=st.builds(
        Record,
        name=st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True),
        sandbox=st.text().map(SandboxId),
        owner=st.builds(Owner, cluster=st.text(), node=st.text()),
        created_at=st.floats(0, 1e12),
        address=st.none() | st.ip_addresses(v=4),
    )
)
def test_a_record_survives_its_file(record: Record) -> None:
    assert translate.from_json(translate.to_json(record)) == record


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "a"}', "null"])
def test_a_broken_record_is_an_error_of_the_driver(text: str) -> None:
    with pytest.raises(ProviderError, match="not the record"):
        translate.from_json(text)


def test_the_command_line_holds_everything_but_the_user_data() -> None:
    memory = Hierarchy("/sys/fs/cgroup/memory", "cgroup", "memory")
    record = translate.new_record(REQUEST, 0.0)
    command = translate.launch_command(
        SITE, record, cgroups=[(memory, "/sys/fs/cgroup/memory/p/vm")], descriptors=(7, 8), size=6
    )
    script = command.index("7") - 1
    assert command[:script] == ["/venv/bin/python", "-I", "-S"]
    assert Path(command[script]).name == "machine.py"
    assert Path(command[script]).is_file()
    assert command[script + 1 : command.index("--")] == [
        *("7", "8", "podvm-web-0a1b2c3d", "6"),
        "/sys/fs/cgroup/memory|cgroup|memory|/sys/fs/cgroup/memory/p/vm",
    ]
    boot = command[command.index("--") + 1 :]
    assert boot == [
        "/venv/bin/python",
        "-I",
        "-m",
        "podvm",
        "boot",
        "-kata-agent-socket=/run/kata-agent/agent.sock",
        "--",
        "/venv/bin/python",
        "-I",
        "-m",
        "caa.testing.agent",
        "--server-addr",
        "unix:///run/kata-agent/agent.sock",
    ]
    assert "secret" not in " ".join(command)
    own = translate.launch_command(
        replace(SITE, agent_command=("/bin/agent", "-x")), record, cgroups=[], descriptors=(7, 8), size=6
    )
    assert own[-4:] == ["boot", "--", "/bin/agent", "-x"]
    more = replace(SITE, agent_command=("/bin/agent",), boot_flags=("-machine=/firmware",))
    told = translate.launch_command(more, record, cgroups=[], descriptors=(7, 8), size=0)
    assert told[-4:] == ["boot", "-machine=/firmware", "--", "/bin/agent"]
