"""The upkeep of certificates with a clock that a test sets: what is renewed, rotated, removed and told."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from caa.errors import Unavailable
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.node.certificates import RETIRE_GRACE, Rules, Upkeep
from caa.sandbox.ports import LinkRequest, LinkState
from caa.wire.certs import ManualCertificates, NodeAuthority
from caa.wire.pki import Profile, create_authority, issue

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ONE = Sandbox(
    id=SandboxId("one"),
    pod=PodSpec(pod_name="web", pod_namespace="prod", netns="/n"),
    phase=Phase.RUNNING,
    instance_name="podvm-web-one",
    token="t",
    boot_id="b",
    created_at=START.timestamp(),
    reached="link",
    ca="1",
)


@dataclass
class Clock:
    now: datetime = START
    slept: list[float] = field(default_factory=list)

    def wall(self) -> float:
        return self.now.timestamp()

    def __call__(self) -> datetime:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        raise InterruptedError("the test ends here")


@dataclass
class Links:
    states: list[LinkState] = field(default_factory=list)
    away: bool = False

    def socket_path(self, sandbox: SandboxId) -> str:
        raise AssertionError

    async def open(self, link: LinkRequest, deadline: float | None) -> None:
        raise AssertionError

    async def close(self, sandbox: SandboxId) -> None:
        raise AssertionError

    async def list(self) -> Sequence[LinkState]:
        if self.away:
            raise Unavailable("no relay")
        return self.states


@dataclass
class Bench:
    clock: Clock
    authority: NodeAuthority
    links: Links
    records: list[Sandbox]
    upkeep: Upkeep

    async def later(self, time: timedelta) -> list[dict[str, object]]:
        """What one round of the upkeep logs after this time."""
        self.clock.now += time
        with capture_logs() as logs:
            await self.upkeep.once()
        return [dict(one) for one in logs if one["log_level"] != "debug"]

    @property
    def names(self) -> list[str]:
        return self.authority.generations.names()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    clock, links, records = Clock(), Links(), list[Sandbox]()
    authority = NodeAuthority.load_or_create(tmp_path / "state", clock=clock)
    rules = Rules(rotation=365 * DAY, warning=30 * DAY)
    upkeep = Upkeep(certificates=authority, records=lambda: records, links=links, rules=rules, clock=clock)
    return Bench(clock, authority, links, records, upkeep)


def _text(folder: Path) -> str:
    return (folder / "client.pem").read_text()


async def test_the_client_certificate_of_each_generation_is_renewed(bench: Bench) -> None:
    bench.records.append(ONE)
    await bench.later(DAY * 0)
    bench.authority.generations.add(bench.clock.now)
    await bench.later(DAY * 0)
    root = bench.authority.generations.root
    before = _text(root), _text(root / "2")
    await bench.later(timedelta(hours=15))
    assert (_text(root), _text(root / "2")) == before
    assert await bench.later(timedelta(hours=2)) == []
    assert not {_text(root), _text(root / "2")} & set(before)


async def test_a_ca_is_rotated_by_age_and_the_old_one_goes_with_its_last_pod_vm(bench: Bench) -> None:
    bench.records.append(ONE)
    assert await bench.later(364 * DAY) == []
    (told,) = await bench.later(DAY)
    assert (told["event"], told["ca"]) == ("the node has a new CA for new pod VMs", "2")
    bench.records.append(replace(ONE, id=SandboxId("two"), ca="2", created_at=bench.clock.wall()))
    await bench.later(30 * DAY)
    assert bench.names == ["1", "2"]
    del bench.records[0]
    (told,) = await bench.later(timedelta(minutes=1))
    assert (told["event"], told["ca"]) == ("a CA that no pod VM needs any more is removed", "1")
    assert bench.names == ["2"]


async def test_without_automatic_rotation_the_ca_stays(bench: Bench) -> None:
    bench.upkeep.rules = Rules(rotation=DAY * 0, warning=30 * DAY)
    await bench.later(3649 * DAY)
    assert bench.names == ["1"]


@pytest.mark.parametrize(
    "record",
    [
        replace(ONE, ca=""),  # of a version that knew one CA only
        replace(ONE, phase=Phase.STARTING, reached=""),
        replace(ONE, phase=Phase.STOPPING),
    ],
)
async def test_what_keeps_a_ca(bench: Bench, record: Sandbox) -> None:
    bench.authority.generations.add(bench.clock.now)
    bench.records.append(record)
    await bench.later(DAY)
    assert bench.names == ["1", "2"]


@pytest.mark.parametrize("record", [replace(ONE, phase=Phase.CREATED, reached="", ca=""), replace(ONE, ca="2")])
async def test_what_does_not_keep_a_ca(bench: Bench, record: Sandbox) -> None:
    bench.authority.generations.add(bench.clock.now)
    bench.records.append(record)
    await bench.later(DAY)
    assert bench.names == ["2"]


async def test_a_start_that_has_just_chosen_its_ca_is_safe(bench: Bench) -> None:
    bench.authority.generations.add(bench.clock.now)
    await bench.later(RETIRE_GRACE - timedelta(seconds=1))
    assert bench.names == ["1", "2"]
    await bench.later(timedelta(seconds=1))
    assert bench.names == ["2"]


@pytest.mark.parametrize("ca", ["1", ""])
async def test_a_link_of_a_lost_record_keeps_its_ca(bench: Bench, ca: str) -> None:
    """Also one of which the relay does not tell: it may be of any."""
    bench.authority.generations.add(bench.clock.now)
    bench.links.states = [LinkState(sandbox=ONE.id, connected=True, shims=1, ca=ca)]
    await bench.later(DAY)
    assert bench.names == ["1", "2"]
    bench.links.states = []
    await bench.later(DAY)
    assert bench.names == ["2"]


async def test_while_the_relay_is_away_no_ca_goes(bench: Bench) -> None:
    bench.authority.generations.add(bench.clock.now)
    bench.links.away = True
    assert await bench.later(DAY) == []
    assert bench.names == ["1", "2"]


async def test_the_end_of_a_pod_vms_certificate_is_told_with_its_pod(bench: Bench) -> None:
    bench.records.append(ONE)
    told = [one for one in await bench.later(705 * DAY) if "pod VM" in str(one.get("certificate"))]
    assert [(one["event"], one["log_level"], one["days_left"]) for one in told] == [
        ("a certificate ends soon", "warning", 25.0)
    ]
    assert (told[0]["certificate"], told[0]["ends"]) == ("certificate of pod VM podvm-web-one", "2028-02-29T00:00:00Z")
    assert "restart the pod prod/web" in str(told[0]["remedy"])
    assert await bench.later(timedelta(hours=1)) == []
    (told,) = [one for one in await bench.later(25 * DAY) if "pod VM" in str(one.get("certificate"))]
    assert (told["event"], told["log_level"]) == ("a certificate has expired", "error")


async def test_a_damaged_generation_is_told_once_and_the_others_are_cared_for(bench: Bench) -> None:
    bench.records.append(ONE)
    bench.authority.generations.add(bench.clock.now)
    root = bench.authority.generations.root
    (root / "ca.key").write_text("garbage")
    (told,) = await bench.later(timedelta(minutes=1))
    assert told["log_level"] == "error"
    assert f"the node's CA in {root} cannot be used" in str(told["error"])
    assert (root / "2" / "client.pem").exists()
    assert await bench.later(timedelta(minutes=1)) == []
    (root / "2" / "ca.key").chmod(0o644)
    assert "chmod 600" in str(await bench.later(timedelta(minutes=1)))


async def test_what_was_seen_is_there_for_a_metric(bench: Bench) -> None:
    bench.records.append(ONE)
    await bench.later(DAY)
    ends = {one.subject: one.seconds_left(bench.clock.now) for one in bench.upkeep.expiries}
    assert ends == {
        "CA 1": 3649 * 86400.0,
        "client certificate of CA 1": 86400.0 + 900,
        "certificate of pod VM podvm-web-one": 729 * 86400.0,
    }


async def test_every_minute(bench: Bench) -> None:
    with pytest.raises(InterruptedError):
        await bench.upkeep.forever()
    assert bench.clock.slept == [60.0]


async def test_without_tls_there_is_nothing_to_do(bench: Bench) -> None:
    bench.upkeep.certificates = None
    await bench.upkeep.forever()
    await bench.upkeep.once()
    assert (bench.clock.slept, bench.upkeep.expiries) == ([], ())


async def test_an_operators_certificates_are_watched_and_left_alone(bench: Bench, tmp_path: Path) -> None:
    ca = create_authority("operator", "old", lifetime=9 * DAY, now=START)
    new = create_authority("operator", "new", lifetime=900 * DAY, now=START)
    client = issue(ca, Profile("operator", "", 40 * DAY, server=False), now=START)
    paths = tmp_path / "ca.crt", tmp_path / "tls.crt", tmp_path / "tls.key"
    for path, text in zip(paths, (ca.cert_pem + new.cert_pem, client.cert_pem, client.key_pem), strict=True):
        path.write_text(text)
    bench.upkeep.certificates = ManualCertificates.load(paths[0], paths[1], key_file=paths[2])
    told = await bench.later(8 * DAY)
    assert [one["certificate"] for one in told] == [
        f"CACERT_FILE {paths[0]} (CN=old,O=operator)",
        f"CERT_FILE {paths[1]}",
    ]
    assert "same issuer and subject" in str(told[1]["remedy"])
    assert paths[1].read_text() == client.cert_pem
    paths[1].unlink()
    (told_now,) = await bench.later(timedelta(minutes=1))
    assert str(told_now["error"]).startswith(f"CERT_FILE: {paths[1]} cannot be read")
