"""What is asked of a chain, and the interleaved rounds in which it is asked."""

import json
import random
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.hops import Chain, Hops, chain
from tests.bench.programs import Programs

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Load:
    """One kind of call, and how many are in flight."""

    name: str
    call: str
    size: int
    in_flight: int


LOADS: Sequence[Load] = (
    Load("check, 1 in flight", "check", 0, 1),
    Load("check, 32 in flight", "check", 0, 32),
    Load("read 32 KiB, 1 in flight", "read", 32 << 10, 1),
    Load("read 1 MiB, 1 in flight", "read", 1 << 20, 1),
)


@dataclass(frozen=True)
class Sample:
    """What one load gave over one chain in one round."""

    round: int
    way: str
    load: str
    figures: Figures


def run_load(load: Load, target: Chain, *, client: Path, seconds: float) -> Figures:
    """Run the load client; its figures, and `cpu_us`: both hops' time on CPU a call. Warms up for a third as long."""
    command = [
        str(client), str(target.socket), load.call, str(load.size), str(load.in_flight), str(seconds / 3), str(seconds),
    ]  # fmt: skip
    before = sum(hop.cpu_ns() for hop in target.hops)
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 2 + 60, check=False)
    if result.returncode:
        raise RuntimeError(f"{load.name}: {result.stderr.strip()}")
    figures: dict[str, float] = json.loads(result.stdout)
    spent = sum(hop.cpu_ns() for hop in target.hops) - before
    return {**figures, "cpu_us": spent / 1e3 / figures["total"]}


def measure(
    ways: Sequence[Hops], programs: Programs, *, rounds: int, seconds: float, say: Callable[[str], None]
) -> list[Sample]:
    """Every way with every load, in a new random order each round; each measurement has a chain of its own."""
    samples = []
    for number in range(rounds):
        work = [(way, load) for way in (None, *ways) for load in LOADS]
        random.shuffle(work)
        for way, load in work:
            figures = _measure_one(way, load, programs, seconds=seconds)
            samples.append(Sample(number, way.name if way else "direct", load.name, figures))
        say(f"round {number + 1} of {rounds}")
    return samples


def _measure_one(way: Hops | None, load: Load, programs: Programs, *, seconds: float) -> Figures:
    with tempfile.TemporaryDirectory(prefix="caa-bench-") as folder, chain(way, programs, Path(folder)) as target:
        return run_load(load, target, client=programs.load, seconds=seconds)
