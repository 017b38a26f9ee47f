"""StatsContainer: a container's figures from its cgroup files, v1 and v2, as Kata's messages."""

from contextlib import suppress
from pathlib import Path

from caa.testing.agent.cgroups import Hierarchies, pairs
from caa.wire.proto import agent

# USER_HZ is 100 on every Linux architecture that runs containers; cpuacct.stat counts in it.
NANOSECONDS_PER_TICK = 10_000_000


def container(hierarchies: Hierarchies, cgroup: str) -> agent.StatsContainerResponse:
    """What the shim wants for `kubectl top` and the kubelet's eviction; a missing file leaves its figure at zero."""

    def files(controller: str) -> Figures:
        return Figures(hierarchies.folder(controller, cgroup))

    if hierarchies.unified:
        stats = _unified(files(""))
    else:
        stats = agent.CgroupStats(
            cpu_stats=_cpu_v1(files("cpuacct"), files("cpu")),
            memory_stats=_memory_v1(files("memory")),
            pids_stats=_pids(files("pids")),
            blkio_stats=_blkio_v1(files("blkio")),
        )
    return agent.StatsContainerResponse(cgroup_stats=stats)


class Figures:
    """The files of one cgroup folder; what is not there reads as nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def text(self, name: str) -> str:
        with suppress(OSError):
            if self._folder is not None:
                return (self._folder / name).read_text()
        return ""

    def number(self, name: str) -> int:
        """A number; `max` and nothing are 0."""
        text = self.text(name).strip()
        return int(text) if text.isdigit() else 0

    def pairs(self, name: str) -> dict[str, int]:
        return pairs(self.text(name))


def _pids(files: Figures) -> agent.PidsStats:
    return agent.PidsStats(current=files.number("pids.current"), limit=files.number("pids.max"))


def _cpu_v1(accounting: Figures, cpu: Figures) -> agent.CpuStats:
    ticks = accounting.pairs("cpuacct.stat")
    throttled = cpu.pairs("cpu.stat")
    return agent.CpuStats(
        cpu_usage=agent.CpuUsage(
            total_usage=accounting.number("cpuacct.usage"),
            percpu_usage=[int(word) for word in accounting.text("cpuacct.usage_percpu").split()],
            usage_in_kernelmode=ticks.get("system", 0) * NANOSECONDS_PER_TICK,
            usage_in_usermode=ticks.get("user", 0) * NANOSECONDS_PER_TICK,
        ),
        throttling_data=agent.ThrottlingData(
            periods=throttled.get("nr_periods", 0),
            throttled_periods=throttled.get("nr_throttled", 0),
            throttled_time=throttled.get("throttled_time", 0),
        ),
    )


def _memory_v1(files: Figures) -> agent.MemoryStats:
    stat = files.pairs("memory.stat")
    return agent.MemoryStats(
        cache=stat.get("cache", 0),
        usage=_memory_data(files, "memory"),
        swap_usage=_memory_data(files, "memory.memsw"),
        kernel_usage=_memory_data(files, "memory.kmem"),
        use_hierarchy=files.number("memory.use_hierarchy") == 1,
        stats=stat,
    )


def _memory_data(files: Figures, prefix: str) -> agent.MemoryData:
    return agent.MemoryData(
        usage=files.number(f"{prefix}.usage_in_bytes"),
        max_usage=files.number(f"{prefix}.max_usage_in_bytes"),
        failcnt=files.number(f"{prefix}.failcnt"),
        limit=files.number(f"{prefix}.limit_in_bytes"),
    )


def _blkio_v1(files: Figures) -> agent.BlkioStats:
    return agent.BlkioStats(
        io_service_bytes_recursive=_io_entries(files.text("blkio.throttle.io_service_bytes_recursive")),
        io_serviced_recursive=_io_entries(files.text("blkio.throttle.io_serviced_recursive")),
    )


def _io_entries(text: str) -> list[agent.BlkioStatsEntry]:
    entries = []
    for words in map(str.split, text.splitlines()):
        if len(words) == 3:
            major, minor = map(int, words[0].split(":"))
            entries.append(agent.BlkioStatsEntry(major=major, minor=minor, op=words[1].lower(), value=int(words[2])))
    return entries


def _unified(files: Figures) -> agent.CgroupStats:
    cpu = files.pairs("cpu.stat")
    stat = files.pairs("memory.stat")
    return agent.CgroupStats(
        cpu_stats=agent.CpuStats(
            cpu_usage=agent.CpuUsage(
                total_usage=cpu.get("usage_usec", 0) * 1000,
                usage_in_kernelmode=cpu.get("system_usec", 0) * 1000,
                usage_in_usermode=cpu.get("user_usec", 0) * 1000,
            ),
            throttling_data=agent.ThrottlingData(
                periods=cpu.get("nr_periods", 0),
                throttled_periods=cpu.get("nr_throttled", 0),
                throttled_time=cpu.get("throttled_usec", 0) * 1000,
            ),
        ),
        memory_stats=agent.MemoryStats(
            cache=stat.get("file", 0),
            usage=_memory_data_v2(files, "memory"),
            swap_usage=_memory_data_v2(files, "memory.swap"),
            use_hierarchy=True,
            stats=stat,
        ),
        pids_stats=_pids(files),
    )


def _memory_data_v2(files: Figures, prefix: str) -> agent.MemoryData:
    return agent.MemoryData(
        usage=files.number(f"{prefix}.current"),
        max_usage=files.number(f"{prefix}.peak"),
        failcnt=files.pairs(f"{prefix}.events").get("max", 0),
        limit=files.number(f"{prefix}.max"),
    )
