"""LIBVIRT_URI over ssh: libvirt's own ssh transport, to a private libvirtd, with a stand-in for the ssh program.

The stand-in notes what it is told and runs the remote command here, as the sshd of a libvirt host would.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import providers.libvirt
from caa.config.load import load
from caa.errors import CredentialsError
from caa.model.instance import Severity
from caa.provider.contract import Provider
from caa.testing.libvirt_calls import Calls
from caa.testing.libvirtd import Libvirtd
from providers.libvirt.connection import Connection
from providers.libvirt.faults import ConnectionLost

NAME = "podvm-web-0a1b2c3d"
LEASED = {"virDomain.interfaceAddresses": lambda *_: {"vnet0": {"addrs": [{"addr": "192.168.150.7"}], "hwaddr": ""}}}
SSH = """#!/bin/sh
echo "$@" >> {log}
while [ "$1" != -- ]; do shift; done
shift 2
exec sh -c "$*"
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("libvirtd", "qemu-system-x86_64", "dnsmasq"),
    pytest.mark.usefixtures("nothing_left"),
]


@pytest.fixture
def uri(daemon: Libvirtd, tmp_path: Path) -> Callable[[str], str]:
    """The address of the daemon over ssh, by what the ssh program does."""

    def make(script: str) -> str:
        program = tmp_path / "ssh"
        program.write_text(script)
        program.chmod(0o755)
        socket = daemon.uri.partition("socket=")[2]
        options = f"command={program}&socket={socket}&proxy=netcat&netcat={tmp_path / 'nc'}"
        return f"qemu+ssh://caa@libvirt-host/system?no_verify=1&{options}"

    # netcat, which libvirt starts on the other side, in three lines: this machine may have none.
    (tmp_path / "nc").write_text(
        f"#!{shutil.which('python3')}\n"
        "import os, select, socket, sys\n"
        "peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[-1])\n"
        "ends = {0: peer.sendall, peer.fileno(): lambda data: os.write(1, data)}\n"
        "while True:\n"
        "    for fd in select.select(list(ends), [], [])[0]:\n"
        "        data = os.read(fd, 65536)\n"
        "        if not data: sys.exit()\n"
        "        ends[fd](data)\n"
    )
    (tmp_path / "nc").chmod(0o755)
    return make


@pytest.fixture
def driver_at(small_guest: dict[str, str]) -> Callable[[str], Provider]:
    def make(address: str) -> Provider:
        environ = {"LIBVIRT_URI": address, "LIBVIRT_ACCELERATION": "qemu", **small_guest}
        values = load(providers.libvirt.SETTINGS, environ)
        return providers.libvirt.provider(values, Connection(address, opener=Calls(LEASED).open))

    return make


async def test_a_pod_vm_on_another_host(
    uri: Any, driver_at: Any, request_of: Any, tmp_path: Path, daemon: Libvirtd
) -> None:
    """Everything goes through the one ssh: calls, the upload of the user data, the console, a cut and its repair."""
    log = tmp_path / "log"
    driver = driver_at(uri(SSH.format(log=log)))
    assert [one.subject for one in await driver.check() if one.severity is Severity.ERROR] == []
    made = await driver.create(request_of(NAME))
    assert await driver.console(made.id) is not None
    daemon.restart()
    assert [one.id for one in await driver.list_owned(request_of(NAME).owner)] == [made.id]
    await driver.delete(made.id)
    await driver.close()
    lines = log.read_text().splitlines()
    assert len(lines) == 2, "one connection, and another after libvirtd's restart"
    assert all("-l caa" in one and " -- libvirt-host " in one for one in lines)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Host key verification failed.", CredentialsError),
        ("caa@libvirt-host: Permission denied (publickey).", CredentialsError),
        ("ssh: connect to host libvirt-host port 22: No route to host", ConnectionLost),
    ],
)
def test_what_ssh_says_reaches_the_operator(uri: Any, said: str, kind: type[Exception]) -> None:
    # ssh fails after a look at the network, when libvirt has written its first call.
    connection = Connection(uri(f"#!/bin/sh\nhead -c 4 > /dev/null; echo '{said}' >&2; exit 255\n"))
    with pytest.raises(kind, match="LIBVIRT_URI") as caught, connection.work():
        pass
    assert said.rstrip(".") in str(caught.value)
