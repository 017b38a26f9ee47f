"""Generations of the node's CA: what lies where, what each pod VM trusts, what goes and what stays."""

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from caa.datapath.greeter import owner_of
from caa.errors import StateError
from caa.wire.certs import SERVER_LIFETIME, NodeAuthority, TlsFiles
from caa.wire.generations import CA_LIFETIME, Generations
from caa.wire.pki import CLOCK_SKEW

NAME = "podvm-web-1"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def authority(state: Path, clock: Clock) -> NodeAuthority:
    return NodeAuthority.load_or_create(state, clock=clock)


def _certificate(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def _owner(path: str) -> bytes:
    return owner_of(_certificate(path).public_bytes(Encoding.DER))


def test_the_first_generation_lies_where_it_always_did(authority: NodeAuthority, state: Path) -> None:
    pem = str(state / "tls" / "client.pem")
    assert authority.generations.names() == ["1"]
    assert authority.client_files("") == authority.client_files("1") == TlsFiles(str(state / "tls/ca.crt"), pem, pem)


def test_a_new_generation_is_for_new_pod_vms_alone(authority: NodeAuthority, clock: Clock, state: Path) -> None:
    old = authority.server_identity(NAME, authority.current())
    files = authority.client_files("1")
    assert authority.generations.add(clock.now) == "2"
    assert authority.current() == "2"
    assert authority.client_files("1") == files
    assert _certificate(files.ca_file).subject != _certificate(authority.client_files("2").ca_file).subject
    new = authority.server_identity(NAME, "2")
    assert (old.client_ca, new.client_ca) == (
        (state / "tls" / "ca.crt").read_text(),
        (state / "tls" / "2" / "ca.crt").read_text(),
    )
    for name, identity in (("1", old), ("2", new)):
        ca = authority.certificate(name)
        assert _verified(identity.cert, ca)
        assert _verified(Path(authority.client_files(name).cert_file).read_text(), ca)
        assert not _verified(identity.cert, authority.certificate({"1": "2", "2": "1"}[name]))


def _verified(pem: str, ca: x509.Certificate) -> bool:
    leaf = x509.load_pem_x509_certificate(pem.encode())
    try:
        leaf.verify_directly_issued_by(ca)
    except ValueError:
        return False
    return True


def test_a_session_knows_its_owner_again_after_a_rotation_of_the_client(
    authority: NodeAuthority, clock: Clock, state: Path
) -> None:
    path = authority.client_files("1").cert_file
    before, owner = Path(path).read_text(), _owner(path)
    clock.now += timedelta(hours=20)
    authority.client_files("1")
    assert Path(path).read_text() != before
    assert _owner(path) == owner
    authority.generations.add(clock.now)
    assert _owner(authority.client_files("1").cert_file) == owner
    assert _owner(authority.client_files("2").cert_file) != owner
    pem = state / "vm.pem"
    pem.write_text(authority.server_identity(NAME, "1").cert)
    assert _owner(str(pem)) != owner, "another pod VM of the same CA"


def test_a_restart_and_another_process_see_the_same(authority: NodeAuthority, state: Path, clock: Clock) -> None:
    authority.generations.add(clock.now)
    pem = authority.ca_pem
    again = NodeAuthority.load_or_create(state, clock=clock)
    assert (again.current(), again.ca_pem) == ("2", pem)
    again.generations.add(clock.now)
    assert authority.current() == "3"


def test_modes_and_nothing_half_made(authority: NodeAuthority, state: Path, clock: Clock) -> None:
    authority.generations.add(clock.now)
    for name in ("1", "2"):
        authority.client_files(name)
    found = {path.relative_to(state / "tls").as_posix(): path for path in (state / "tls").rglob("*")}
    assert sorted(found) == ["2", "2/ca.crt", "2/ca.key", "2/client.pem", "ca.crt", "ca.key", "client.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found.values() if path.is_file()} == {0o600}
    assert stat.S_IMODE(found["2"].stat().st_mode) == 0o700


def test_rotations_at_the_same_moment_make_one_generation(authority: NodeAuthority, clock: Clock, state: Path) -> None:
    class Late(Generations):
        """Has looked before any other made anything."""

        def names(self) -> list[str]:
            return ["1"]

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: Late(state).add(clock.now), range(6)))
    assert set(made) == {"2"}
    assert authority.generations.names() == ["1", "2"]
    assert [path.name for path in (state / "tls").glob(".*")] == []
    assert authority.ca_pem


def test_removal_takes_everything_of_one_generation(authority: NodeAuthority, clock: Clock, state: Path) -> None:
    for _ in range(2):
        authority.generations.add(clock.now)
    for name in ("1", "2", "3"):
        authority.client_files(name)
    authority.generations.remove("1")
    authority.generations.remove("2")
    authority.generations.remove("2")
    assert sorted(path.name for path in (state / "tls").iterdir()) == ["3"]
    assert authority.generations.names() == ["3"]
    assert authority.client_files("") == authority.client_files("3")
    assert authority.generations.add(clock.now) == "4", "a number is never used again"


def test_a_removal_that_was_interrupted_is_finished_by_the_next(authority: NodeAuthority, clock: Clock) -> None:
    authority.generations.add(clock.now)
    authority.generations.add(clock.now)
    root = authority.generations.root
    (root / "2").rename(root / ".old.00000000")
    (root / "ca.key").unlink()
    assert authority.generations.names() == ["1", "3"]
    authority.generations.remove("1")
    assert [path.name for path in root.iterdir()] == ["3"]


def test_a_generation_that_is_gone_says_what_to_do(authority: NodeAuthority) -> None:
    with pytest.raises(StateError, match=r"generation 5 of the node's CA is not in .*restart the pod"):
        authority.client_files("5")


def test_only_looking_makes_nothing(state: Path) -> None:
    with pytest.raises(StateError, match=r"there is no CA in .*CAA_STATE_DIR"):
        NodeAuthority.load(state)
    assert not state.exists()


def test_the_generation_of_a_file(authority: NodeAuthority, clock: Clock) -> None:
    authority.generations.add(clock.now)
    assert [authority.generation_of(authority.client_files(name).ca_file) for name in ("1", "2")] == ["1", "2"]
    assert authority.generation_of("/elsewhere/ca.crt") == ""


def test_when_a_ca_is_due(authority: NodeAuthority, clock: Clock) -> None:
    year, never = timedelta(days=365), timedelta(days=36500)
    assert not authority.rotation_due(year)
    clock.now += year
    assert authority.rotation_due(year)
    assert not authority.rotation_due(never)
    clock.now += CA_LIFETIME - year - SERVER_LIFETIME
    assert authority.rotation_due(never), "it would end before what it signs"


def test_which_generations_may_go(authority: NodeAuthority, clock: Clock) -> None:
    grace = timedelta(minutes=10)
    assert authority.retirable(grace) == []
    authority.generations.add(clock.now)
    assert authority.retirable(grace) == []
    clock.now += grace
    assert authority.retirable(grace) == ["1"]
    authority.generations.add(clock.now)
    assert authority.retirable(grace) == ["1"]


def test_a_leaf_holds_for_clocks_that_differ_either_way(authority: NodeAuthority, clock: Clock) -> None:
    client = _certificate(authority.client_files("1").cert_file)
    assert client.not_valid_before_utc == clock.now - CLOCK_SKEW
    assert client.not_valid_after_utc == clock.now + timedelta(hours=24) + CLOCK_SKEW
    assert timedelta(minutes=10) < CLOCK_SKEW
    ca = authority.certificate("1")
    assert ca.not_valid_before_utc <= client.not_valid_before_utc


def test_ends_of_everything(authority: NodeAuthority, clock: Clock) -> None:
    authority.client_files("1")
    authority.generations.add(clock.now)
    found = {one.subject: one for one in authority.expiries()}
    assert list(found) == ["CA 1", "client certificate of CA 1", "CA 2"]
    assert "restart the pods" in found["CA 1"].remedy
    assert "caa certs rotate ca" in found["CA 2"].remedy
    assert found["CA 2"].ends == clock.now + CA_LIFETIME
    (authority.generations.root / "ca.crt").write_text("garbage")
    assert [one.subject for one in authority.expiries()] == ["client certificate of CA 1", "CA 2"]


def test_a_pod_vm_ends_with_its_ca_at_the_latest(authority: NodeAuthority, clock: Clock) -> None:
    assert authority.server_ends("1", clock.now) == clock.now + SERVER_LIFETIME
    late = clock.now + CA_LIFETIME - timedelta(days=1)
    assert authority.server_ends("1", late) == clock.now + CA_LIFETIME
