"""`python -m tests.chaos`: enter namespaces of its own as root, run the rows, print and write what was found."""

import asyncio
import json
import os
import secrets
import shutil
import sys
from pathlib import Path

import click

from caa.testing.demo import world
from caa.testing.demo.daemons import Paths
from tests.chaos import enclosure
from tests.chaos.field import Plan
from tests.chaos.report import Outcome, Report
from tests.chaos.rows import ROWS, Row


@click.command()
@click.option("--seed", type=int, help="Where the chances come from; printed. Another one each time if not given.")
@click.option("--rows", default=",".join(ROWS), show_default=True, help="Which rows, by name.")
@click.option("--full/--short", default=False, help="How often; the short run is part of `make test`.")
@click.option("--pods", type=click.IntRange(1, 80), help="Standing pods, if not as many as the row says.")
@click.option("--times", type=click.IntRange(1), help="Kills or cuts, if not as many as the row says.")
@click.option("--report", type=click.Path(path_type=Path), help="Write it there too: Markdown if it ends in .md.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the daemons' logs in this folder.")
@click.option("--inside", type=click.Path(path_type=Path), hidden=True, help="The folder; set after re-execution.")
def main(*, seed: int | None, rows: str, full: bool, inside: Path | None, **given: object) -> None:
    """Kill and cut what pods depend on while they work, and count what they lose: nothing."""
    chosen = [name for name in rows.split(",") if name]
    if unknown := set(chosen) - set(ROWS):
        raise click.BadParameter(f"no such row: {', '.join(sorted(unknown))}", param_hint="--rows")
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    if inside is None:
        _enter([*sys.argv[1:], "--seed", str(seed)])
    report = Report(seed, "full" if full else "short")
    click.echo(f"chaos: {report.size}, seed {seed}")
    for name in chosen:
        if ROWS[name].available:
            _run(name, report, folder=inside, given=given)
        else:
            report.unavailable[name] = f"{ROWS[name].why} ({ROWS[name].needs} is not there)"
    _say(report, given.get("report"))
    sys.exit(0 if report.ok else 1)


def _run(name: str, report: Report, *, folder: Path, given: dict[str, object]) -> None:
    row: Row = ROWS[name]
    size = row.full if report.size == "full" else row.short
    size = type(size)(given["times"] or size.times, given["pods"] or size.pods, size.longest)
    click.echo(f"chaos: {name}: {size.times} times, {size.pods} standing pods")
    place = folder / str(list(ROWS).index(name))
    place.mkdir()
    place.chmod(0o755)
    plan = Plan(folder=place, environ=os.environ, seed=report.seed, pods=size.pods, lanes=row.lanes)
    if not report.outcomes:
        world.prepare()
    try:
        report.outcomes += asyncio.run(row.act(plan, size))
    except KeyboardInterrupt:
        report.outcomes.append(Outcome(name, problems=["interrupted"]))
    if given["logs"]:
        _keep_logs(place, Path(str(given["logs"]), name))


def _keep_logs(place: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for log in place.glob("*.log"):
        shutil.copy(log, target)


def _say(report: Report, target: object) -> None:
    click.echo(report.as_markdown())
    if target is not None:
        path = Path(str(target))
        text = report.as_markdown() if path.suffix == ".md" else json.dumps(report.as_json(), indent=2) + "\n"
        path.write_text(text)
    click.echo(f"chaos: {'passed' if report.ok else 'FAILED'}, seed {report.seed}")


def _enter(argv: list[str]) -> None:
    """Re-execute inside new namespaces; on this machine nothing changes."""
    if os.geteuid() != 0:
        raise click.ClickException("namespaces need root: run it as root")
    if lacking := enclosure.missing():
        raise click.ClickException(f"missing programs: {', '.join(lacking)}")
    places = [str(Paths(Path(str(number))).vms) for number in range(len(ROWS))]
    sys.exit(enclosure.run([sys.executable, "-m", "tests.chaos", *argv, "--inside"], places=places))


if __name__ == "__main__":
    main()
