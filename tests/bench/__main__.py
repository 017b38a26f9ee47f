"""`python -m tests.bench`: build, measure, print; with `--write` the tables go into docs/performance.md."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.bench import handover, memory, report, soak
from tests.bench.certificates import write_certificates
from tests.bench.hops import all_hops
from tests.bench.loads import measure
from tests.bench.programs import ROOT, build, build_agent

PAGE = ROOT / "docs" / "performance.md"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="The data path against four others.")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds a load (default %(default)s)")
    parser.add_argument("--pods", type=int, default=400, help="pods of the memory slope (default %(default)s)")
    parser.add_argument(
        "--niceness", type=int, default=0, help="of our two processes (default %(default)s, as the others)"
    )
    parser.add_argument("--handover", action="store_true", help="only the hand-overs between relays")
    parser.add_argument("--soak", action="store_true", help="only memory and descriptors over many pods and hand-overs")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.4 s, 20 pods: to see that it runs")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.relative_to(ROOT)}")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds, given.pods = 3, 0.4, 20
    return given


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _rows(given: argparse.Namespace, certificates: Path) -> list[report.Row]:
    programs = build()
    ways = all_hops(programs, certificates, niceness=given.niceness)
    _say(f"{given.rounds} rounds, {len(ways) + 1} ways, {given.seconds:g} s a load")
    samples = measure(ways, programs, rounds=given.rounds, seconds=given.seconds, say=_say)
    _say("memory")
    pods = memory.pod_costs(ways, programs, pods=given.pods)
    forwarders = memory.forwarder_costs(ways, programs, rounds=given.rounds)
    return [*report.load_rows(samples), *report.pod_rows(pods), *report.forwarder_rows(forwarders)]


def _hop_table(given: argparse.Namespace, certificates: Path) -> str:
    return report.table(_rows(given, certificates), rounds=given.rounds, seconds=given.seconds)


def _handover_table(given: argparse.Namespace, certificates: Path) -> str:
    times = 3 if given.quick else handover.TIMES
    return handover.measure(certificates, build_agent(), times=times, say=_say)


def _soak_table(given: argparse.Namespace, certificates: Path) -> str:
    visits, moves = (500, 30) if given.quick else (soak.VISITS, soak.MOVES)
    return soak.measure(certificates, build_agent(), visits=visits, moves=moves, say=_say)


def main() -> None:
    """Measure and print; what was started is gone afterwards, after a SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = _arguments()
    parts = {"bench": _hop_table, "handover": _handover_table}
    if given.soak:
        parts = {"soak": _soak_table}
    elif given.handover:
        del parts["bench"]
    with tempfile.TemporaryDirectory(prefix="caa-bench-") as certificates:
        write_certificates(Path(certificates))
        for name, part in parts.items():
            table = part(given, Path(certificates))
            print(table, flush=True)
            if given.write:
                report.put(PAGE, name, table)


if __name__ == "__main__":
    main()
