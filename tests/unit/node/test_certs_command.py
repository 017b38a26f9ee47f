"""`caa certs` on real files: what it prints, what it makes, and what it refuses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caa.cli import main
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.node.certs_command import table
from caa.sandbox.store import open_store
from caa.wire.certs import NodeAuthority
from caa.wire.expiry import Expiry
from caa.wire.pki import Profile, create_authority, issue

DAY = timedelta(days=1)
ONE = Sandbox(
    id=SandboxId("one"),
    pod=PodSpec(pod_name="web", pod_namespace="prod", netns="/n"),
    phase=Phase.RUNNING,
    instance_name="podvm-web-one",
    token="t",
    boot_id="b",
    created_at=(datetime.now(UTC) - 720 * DAY).timestamp(),
    reached="link",
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    NodeAuthority.load_or_create(tmp_path / "state").client_files()
    return tmp_path / "state"


def certs(capsys: Capture, *words: object) -> tuple[int, str, str]:
    status = main(["certs", *map(str, words)])
    return status, *capsys.readouterr()


async def test_show_names_ends_and_users(state: Path, capsys: Capture) -> None:
    store = await open_store(state / "node.db")
    await store.add(ONE)
    await store.add(replace(ONE, id=SandboxId("two"), instance_name="podvm-web-two", ca="2"))
    assert certs(capsys, "rotate", "ca", "--state-dir", state)[0] == 0
    status, out, err = certs(capsys, "show", "--state-dir", state)
    await store.close()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines if "days left" in line] == [
        "CA 1",
        "client certificate of CA 1",
        "CA 2",
        "certificate of pod VM podvm-web-one",
        "certificate of pod VM podvm-web-two",
    ]
    assert "restart the pod prod/web" in out
    assert lines[-2:] == ["pod VMs that trust CA 1: 1", "pod VMs that trust CA 2: 1; new ones will"]


def test_rotate_ca(state: Path, capsys: Capture) -> None:
    before = (state / "tls" / "ca.crt").read_text()
    status, out, _ = certs(capsys, "rotate", "ca", "--state-dir", state)
    assert status == 0
    assert out.startswith("CA 2 is made: new pod VMs trust it. CA 1 is kept")
    assert NodeAuthority.load(state).current() == "2"
    assert (state / "tls" / "ca.crt").read_text() == before


def test_rotate_client(state: Path, capsys: Capture) -> None:
    NodeAuthority.load(state).generations.add(datetime.now(UTC))
    before = (state / "tls" / "client.pem").read_text()
    status, out, _ = certs(capsys, "rotate", "client", "--state-dir", state)
    assert (status, "of CA 1, 2:" in out) == (0, True)
    assert (state / "tls" / "client.pem").read_text() != before
    assert "PRIVATE" not in out
    assert (state / "tls" / "2" / "client.pem").exists()


@pytest.mark.parametrize("words", [("show",), ("rotate", "ca"), ("rotate", "client")])
def test_a_node_without_a_ca(tmp_path: Path, capsys: Capture, words: tuple[str, ...]) -> None:
    status, _, err = certs(capsys, *words, "--state-dir", tmp_path / "none")
    assert status == 1
    assert "there is no CA in" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", [("ca",), ("client",)])
def test_what_is_not_ours_is_not_rotated(tmp_path: Path, capsys: Capture, words: tuple[str, ...]) -> None:
    now = datetime.now(UTC)
    ca = create_authority("operator", "ca", lifetime=DAY, now=now - 2 * DAY)
    client = issue(ca, Profile("operator", "", DAY, server=False), now=now - 2 * DAY)
    flags = []
    for flag, text in (("ca-cert-file", ca.cert_pem), ("cert-file", client.cert_pem), ("cert-key", client.key_pem)):
        path = tmp_path / flag
        path.write_text(text)
        flags.append(f"-{flag}={path}")
    status, _, err = certs(capsys, "rotate", *words, *flags, "-state-dir", tmp_path)
    assert status == 2
    assert "CERT_FILE is set: these certificates are yours to renew" in err
    status, out, _ = certs(capsys, "show", *flags, "-state-dir", tmp_path)
    assert (status, out.count("has expired")) == (1, 2)
    assert str(tmp_path / "cert-file") in out


def test_without_tls(tmp_path: Path, capsys: Capture) -> None:
    assert certs(capsys, "show", "--disable-tls", "--state-dir", tmp_path)[:2] == (
        0,
        "TLS is off (--disable-tls): there are no certificates\n",
    )
    status, _, err = certs(capsys, "rotate", "ca", "--disable-tls", "--state-dir", tmp_path)
    assert (status, "no certificates to rotate" in err) == (2, True)


def test_a_store_that_cannot_be_read(state: Path, capsys: Capture) -> None:
    (state / "node.db").write_text("no database at all, but long enough to be taken for one" * 20)
    status, _, err = certs(capsys, "show", "--state-dir", state)
    assert status == 1
    assert "node.db cannot be read" in err


def test_a_certificate_of_tomorrow_is_not_valid_yet() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    one = Expiry(subject="CA 1", begins=now + DAY, ends=now + 9 * DAY, remedy="set the clock")
    assert table([one], now, warning=DAY) == (
        "CA 1  2026-03-02 00:00 - 2026-03-10 00:00  9 days left  is not valid yet\n    set the clock\n",
        1,
    )
