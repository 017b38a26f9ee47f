"""The stand-in agent's smaller parts: policy, options, images, files, cgroups, statistics, events."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from caa.errors import InvalidInput
from caa.testing.agent import files, images, stats
from caa.testing.agent.cgroups import UNIFIED, Hierarchies, hierarchies, pairs
from caa.testing.agent.images import Images
from caa.testing.agent.oom import OomEvents
from caa.testing.agent.options import Options, parse
from caa.testing.agent.policy import Policy
from caa.testing.agent.runc import failure
from caa.testing.agent.sandbox import empty
from caa.wire.proto import agent
from caa.wire.status import RpcError


class TestPolicy:
    def test_default_lines_count_and_the_rest_does_not(self) -> None:
        policy = Policy(frozenset(), "package agent_policy\ndefault ExecProcessRequest := false\ndefault X := true\n")
        policy.check("X")
        with pytest.raises(RpcError) as denied:
            policy.check("ExecProcessRequest")
        assert denied.value.code == 7
        assert denied.value.message == '"ExecProcessRequest is blocked by policy: "'

    def test_a_new_document_replaces_the_old_one_and_not_the_list(self) -> None:
        policy = Policy(frozenset({"A"}), "default B := false")
        policy.replace("default A := true")
        policy.check("B")
        with pytest.raises(RpcError):
            policy.check("A")


class TestOptions:
    def test_the_defaults_are_the_real_agents(self) -> None:
        assert parse([]) == Options()
        assert str(Options().server) == "/run/kata-containers/agent.sock"

    def test_flags(self) -> None:
        given = parse(["--server-addr", "unix:///run/x.sock", "--images", "/i", "--deny", "A", "--deny", "B"])
        assert given.server == Path("/run/x.sock")
        assert given.images == Path("/i")
        assert given.deny == {"A", "B"}

    @pytest.mark.parametrize("address", ["vsock://1:2", "unix://relative"])
    def test_other_addresses_are_refused(self, address: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse(["--server-addr", address])
        assert address in capsys.readouterr().err


class TestImages:
    def test_the_last_part_of_the_reference_is_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "web").mkdir()
        (tmp_path / "web:2").mkdir()
        found = Images(folder=tmp_path, fallback=None, built=tmp_path / "none")
        assert found.find("registry.example/team/web:1") == tmp_path / "web"
        assert found.find("web@sha256:00") == tmp_path / "web"
        assert found.find("docker.io/web:2") == tmp_path / "web:2"

    def test_unknown_is_a_failed_pull_unless_there_is_a_fallback(self, tmp_path: Path) -> None:
        with pytest.raises(RpcError, match="Failed to pull image x/missing:1"):
            Images(folder=tmp_path, fallback=None, built=tmp_path / "none").find("x/missing:1")
        assert Images(folder=None, fallback=tmp_path, built=tmp_path / "none").find("x/missing:1") == tmp_path

    @pytest.mark.parametrize("reference", ["..", "../etc", "a/..", ""])
    def test_a_reference_does_not_leave_the_folder(self, tmp_path: Path, reference: str) -> None:
        inner = tmp_path / "images"
        inner.mkdir()
        with pytest.raises(RpcError):
            Images(folder=inner, fallback=None, built=tmp_path / "none").find(reference)

    def test_only_a_static_busybox_will_do(self, tmp_path: Path) -> None:
        fake = tmp_path / "busybox"
        fake.write_bytes(b"#!/bin/sh\n")
        with pytest.raises(InvalidInput, match="busybox-static"):
            images.build_busybox_rootfs(tmp_path / "rootfs", fake)
        assert not (tmp_path / "rootfs").exists()

    def test_an_interpreter_is_seen(self) -> None:
        header = bytearray(64 + 56)
        header[:6] = b"\x7fELF\x02\x01"
        header[32] = 64  # the program headers' offset
        header[54] = 56  # their size
        header[56] = 1  # their number
        header[64] = 1  # PT_LOAD
        assert images.is_static_elf(bytes(header))
        header[64] = 3  # PT_INTERP
        assert not images.is_static_elf(bytes(header))


def copy(base: Path, **fields: object) -> None:
    request = agent.CopyFileRequest(uid=os.getuid(), gid=os.getgid(), **fields)  # type: ignore[arg-type]
    files.copy(request, base)


class TestCopyFile:
    def test_a_file_appears_with_its_last_chunk(self, tmp_path: Path) -> None:
        path = tmp_path / "a/b/file"
        copy(tmp_path, path=str(path), file_size=6, file_mode=0o100640, dir_mode=0o750, data=b"abc")
        assert not path.exists()
        copy(tmp_path, path=str(path), file_size=6, file_mode=0o100640, dir_mode=0o750, data=b"def", offset=3)
        assert path.read_bytes() == b"abcdef"
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.parent.stat().st_mode & 0o777 == 0o750

    def test_a_shorter_file_replaces_a_longer_one(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        for text in (b"a long text", b"short"):
            copy(tmp_path, path=str(path), file_size=len(text), file_mode=0o100644, data=text)
        assert path.read_bytes() == b"short"

    def test_folders_and_links(self, tmp_path: Path) -> None:
        copy(tmp_path, path=str(tmp_path / "cm/..new"), file_mode=0o40755, dir_mode=0o750)
        copy(tmp_path, path=str(tmp_path / "cm/..data"), file_mode=0o120777, data=b"..old")
        copy(tmp_path, path=str(tmp_path / "cm/..data"), file_mode=0o120777, data=b"..new")
        assert (tmp_path / "cm/..data").readlink() == Path("..new")
        assert (tmp_path / "cm/..data").is_dir()

    @pytest.mark.parametrize("path", ["/etc/x", "{base}/../x", "x", "{base}"])
    def test_elsewhere_is_refused(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(RpcError, match="EINVAL"):
            copy(tmp_path, path=path.format(base=tmp_path), file_mode=0o100644, data=b"x", file_size=1)

    def test_empty_removes_all_but_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "a/b/file").write_text("x")
        (tmp_path / "link").symlink_to("/etc")
        empty(tmp_path)
        assert list(tmp_path.iterdir()) == []
        empty(tmp_path / "absent")


HYBRID = """\
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
proc /proc proc rw 0 0
"""


class TestCgroups:
    def test_a_hybrid_machine_has_its_controllers_on_v1(self) -> None:
        found = hierarchies(HYBRID)
        assert not found.unified
        assert found.folder("cpuacct", "/a/b") == Path("/sys/fs/cgroup/cpu,cpuacct/a/b")
        assert found.folder("blkio", "/a/b") is None

    def test_a_unified_machine(self) -> None:
        found = hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
        assert found.unified
        assert found.folder("memory", "/a") == Path("/sys/fs/cgroup/a")

    def test_remove_takes_what_is_below_and_absent_is_fine(self, tmp_path: Path) -> None:
        (tmp_path / "caa/s/c").mkdir(parents=True)
        (tmp_path / "caa/other").mkdir()
        found = Hierarchies({"memory": tmp_path})
        found.remove("/caa/s")
        found.remove("/caa/s")
        found.prune("/caa")
        assert (tmp_path / "caa/other").is_dir()
        assert not (tmp_path / "caa/s").exists()

    def test_pairs_skip_what_is_no_number(self) -> None:
        assert pairs("a 1\nb max\nc\n\nd 2 3\n") == {"a": 1}


def write(folder: Path, values: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in values.items():
        (folder / name).write_text(text)


class TestStats:
    def test_v1(self, tmp_path: Path) -> None:
        write(tmp_path / "cpuacct/c", {"cpuacct.usage": "100\n", "cpuacct.usage_percpu": "60 40 \n"})
        write(tmp_path / "cpuacct/c", {"cpuacct.stat": "user 3\nsystem 2\n"})
        write(tmp_path / "cpu/c", {"cpu.stat": "nr_periods 5\nnr_throttled 4\nthrottled_time 3\n"})
        write(tmp_path / "memory/c", {"memory.usage_in_bytes": "4096\n", "memory.stat": "cache 1\nrss 2\n"})
        write(tmp_path / "pids/c", {"pids.current": "2\n", "pids.max": "max\n"})
        io = "8:0 Read 10\n8:0 Total 10\nTotal 10\n"
        write(tmp_path / "blkio/c", {"blkio.throttle.io_service_bytes_recursive": io})
        found = Hierarchies({name: tmp_path / name for name in ("cpuacct", "cpu", "memory", "pids", "blkio")})
        got = stats.container(found, "/c").cgroup_stats
        assert got.cpu_stats.cpu_usage.total_usage == 100
        assert list(got.cpu_stats.cpu_usage.percpu_usage) == [60, 40]
        assert got.cpu_stats.cpu_usage.usage_in_usermode == 30_000_000
        assert got.cpu_stats.throttling_data.throttled_periods == 4
        assert got.memory_stats.usage.usage == 4096
        assert got.memory_stats.stats["rss"] == 2
        assert (got.pids_stats.current, got.pids_stats.limit) == (2, 0)
        assert [entry.op for entry in got.blkio_stats.io_service_bytes_recursive] == ["read", "total"]

    def test_v2(self, tmp_path: Path) -> None:
        write(tmp_path / "c", {"cpu.stat": "usage_usec 7\nuser_usec 4\nsystem_usec 3\n", "memory.current": "99\n"})
        write(tmp_path / "c", {"memory.max": "max\n", "memory.stat": "file 5\n", "pids.current": "1\n"})
        got = stats.container(Hierarchies({UNIFIED: tmp_path}), "/c").cgroup_stats
        assert got.cpu_stats.cpu_usage.total_usage == 7000
        assert got.memory_stats.usage.usage == 99
        assert got.memory_stats.cache == 5
        assert got.pids_stats.current == 1

    def test_nothing_there_is_all_zero(self, tmp_path: Path) -> None:
        got = stats.container(Hierarchies({"memory": tmp_path}), "/gone").cgroup_stats
        assert got.memory_stats.usage.usage == 0


class TestOomEvents:
    async def test_an_event_goes_to_one_caller(self) -> None:
        events = OomEvents()
        first, second = asyncio.ensure_future(events.next()), asyncio.ensure_future(events.next())
        await asyncio.sleep(0)
        events.report("c1")
        assert await first == "c1"
        assert not second.done()
        events.end()
        with pytest.raises(RpcError) as told:
            await second
        assert (told.value.code, told.value.message) == (13, '""')

    async def test_a_caller_that_left_takes_nothing(self) -> None:
        events = OomEvents()
        gone = asyncio.ensure_future(events.next())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        events.report("c1")
        assert await events.next() == "c1"


class TestFailures:
    def test_a_missing_program_in_the_agents_words(self) -> None:
        message = 'exec failed: exec: \\"/bin/no\\": stat /bin/no: no such file or directory'
        assert failure(f'{{"level":"error","msg":"{message}"}}\n') == "the file /bin/no was not found"
        message = 'exec: \\"no\\": executable file not found in $PATH'
        assert failure(f'{{"level":"error","msg":"{message}"}}\n') == "the file no was not found"

    def test_the_last_error_counts(self) -> None:
        log = '{"level":"warning","msg":"a"}\n{"level":"error","msg":"b"}\n{"level":"error","msg":"c"}\n'
        assert failure(log) == "c"
        assert failure("") == "runc failed"
