"""Namespaces in which another architecture is emulated: who one is there, and what an old kernel is told."""

from pathlib import Path

import pytest

from caa.errors import ConfigError
from podvm.image import emulate

pytestmark = [pytest.mark.root, pytest.mark.needs("unshare")]
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def run(script: str) -> tuple[int, str, str]:
    done = emulate.run(["sh", "-c", emulate.WAIT + script], env=ENV, timeout=20)
    return done.returncode, done.stdout, done.stderr


def test_every_user_is_who_he_is_outside() -> None:
    status, out, _ = run("cat /proc/self/uid_map /proc/self/gid_map; id -u; readlink /proc/self/ns/user")
    lines = out.splitlines()
    assert status == 0
    assert [line.split() for line in lines[:2]] == [["0", "0", "4294967295"]] * 2
    assert lines[2] == "0"
    assert lines[3].startswith("user:[")


def test_a_command_s_status_and_words_come_back() -> None:
    assert run("echo out; echo wrong >&2; exit 3") == (3, "out\n", "wrong\n")


def test_an_old_kernel_is_named() -> None:
    with pytest.raises(ConfigError, match=r"emulated on Linux 6\.7 or later: build on such a machine, or on its own"):
        run("echo 'no formats of its own' >&2; exit 70")


def test_where_no_namespace_can_be_made() -> None:
    with pytest.raises(ConfigError, match=r"no user namespace can be made .*: build on a machine of the image's arch"):
        emulate.run(["no-such-program"], env=ENV, timeout=20)


def test_where_users_cannot_be_given_the_command_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container whose root is not the machine's."""
    monkeypatch.setattr(emulate, "_ALL", "0 0 4294967295\n0 0 1\n")  # the kernel refuses what overlaps
    with pytest.raises(ConfigError, match=r"the machine's users cannot be had in a user namespace .*Invalid argument"):
        run(f"touch {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()
