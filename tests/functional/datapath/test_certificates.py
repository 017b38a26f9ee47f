"""Certificates that change under load: real relay, real forwarders, real TLS, the node's own CA.

The clock of the authority is set, that of relay and forwarder is the machine's: a certificate that is made by a clock
which is wrong is what two ends see whose clocks differ.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from caa.model.ids import SandboxId
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.node.certificates import RETIRE_GRACE, Rules, Upkeep
from caa.node.links import LinkTls, RelayLinks
from caa.wire import pki
from caa.wire.certs import CLIENT_LIFETIME, MANUAL_SERVER_NAME, NodeAuthority
from caa.wire.pki import CLOCK_SKEW

OK = (0, "")
DAY = timedelta(days=1)


class Skewed:
    """The machine's clock, and how far ahead of it we are."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self.ahead = ahead

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def wall(self) -> float:
        return self().timestamp()

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


@dataclass
class Pod:
    """A forwarder behind a proxy, made under the CA that was current."""

    name: str
    ca: str
    guest: Any
    proxy: Any

    def opening(self, authority: NodeAuthority, ca: str = "") -> bytes:
        files = authority.client_files(ca or self.ca)
        client = Path(files.cert_file), Path(files.key_file)
        made = replace(
            self.guest.opening, port=self.proxy.port, ca=Path(files.ca_file), client=client, sandbox=self.name
        )
        return bytes(replace(made, name=f"podvm-{self.name}").payload())


@pytest.fixture
def behind_proxy(make_agent: Any, start_guest: Any, start_proxy: Any) -> Callable[..., tuple[Any, Any]]:
    """A forwarder that trusts this CA file, and the proxy before it."""

    def start(name: str, ca: Path, *, server: tuple[Path, Path]) -> tuple[Any, Any]:
        guest = start_guest(make_agent(f"{name}.sock").path, "-ca-cert-file", str(ca), server=server)
        return guest, start_proxy(guest.port)

    return start


@pytest.fixture
def make_pod(folder: Path, behind_proxy: Any) -> Callable[..., Pod]:
    """A pod VM as the node would make it now."""

    def make(authority: NodeAuthority, name: str) -> Pod:
        ca = authority.current()
        identity = authority.server_identity(f"podvm-{name}", ca)
        paths = {part: folder / f"{name}.{part}" for part in ("ca", "cert", "key")}
        for part, text in (("ca", identity.client_ca), ("cert", identity.cert), ("key", identity.key)):
            paths[part].write_text(text)
        return Pod(name, ca, *behind_proxy(name, paths["ca"], server=(paths["cert"], paths["key"])))

    return make


class Load:
    """Calls on one connection of the shim, one after the other, until told to stop. Every answer is checked."""

    def __init__(self, shim: Any) -> None:
        self._shim = shim
        self.answered = 0
        self.wrong: list[object] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            payload = b"%d" % self.answered * 100
            try:
                answer = self._shim.call("Echo", payload)
            except (OSError, EOFError, AssertionError) as error:
                self.wrong.append(error)
                return
            if answer != (OK, payload):
                self.wrong.append(answer)
            self.answered += 1

    def goes_on(self) -> bool:
        """Whether ten more calls are answered within 10 s."""
        end, goal = time.monotonic() + 10, self.answered + 10
        while self.answered < goal and time.monotonic() < end and not self.wrong:
            time.sleep(0.01)
        return self.answered >= goal

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(15)


@pytest.fixture
def load(shim: Callable[[Path], Any]) -> Iterator[Callable[[Path], Load]]:
    loads: list[Load] = []

    def start(path: Path) -> Load:
        loads.append(Load(shim(path)))
        return loads[-1]

    yield start
    for one in loads:
        one.stop()
        assert one.wrong == []


def short_lived(folder: Path, seconds: float) -> NodeAuthority:
    """An authority whose present client certificate expires for everybody in a few seconds."""
    clock = Skewed(timedelta(seconds=seconds) - CLIENT_LIFETIME - CLOCK_SKEW)
    authority = NodeAuthority.load_or_create(folder / "state", clock=clock)
    authority.client_files()
    clock.ahead += timedelta(hours=1)  # still long before a renewal
    return authority


def test_the_client_certificate_rotates_under_load(
    relay: Any, folder: Path, make_pod: Any, load: Any, until: Any
) -> None:
    """The old one has expired when the link is cut, so only the new one can have brought it back."""
    old = short_lived(folder, 2.5)
    pod = make_pod(old, "one")
    expires = time.monotonic() + 2.6
    assert relay.ask("Open", pod.opening(old)) == (OK, b"")
    loads = [load(relay.agent_socket("one")) for _ in range(3)]
    assert all(one.goes_on() for one in loads)
    until(lambda: time.monotonic() > expires, "the certificate to expire")
    assert all(one.goes_on() for one in loads), "a link that stands does not mind"
    before = Path(old.client_files().cert_file).read_text()
    again = NodeAuthority.load_or_create(folder / "state")  # the node was restarted
    assert relay.ask("Open", pod.opening(again)) == (OK, b"")
    assert Path(again.client_files().cert_file).read_text() != before
    for kind in ("rst", "fin", "rst"):
        pod.proxy.cut(kind)
        assert all(one.goes_on() for one in loads)
    assert relay.process.text().count("link resumed: sandbox=one") == 3
    assert "expired" not in relay.process.text()


def test_an_expired_client_certificate_is_told_and_a_new_one_mends_it(
    relay: Any, folder: Path, make_pod: Any, load: Any, until: Any
) -> None:
    """The node was away for too long: the pod waits for it, and calls with it."""
    old = short_lived(folder, 1.5)
    pod = make_pod(old, "one")
    expires = time.monotonic() + 1.6
    assert relay.ask("Open", pod.opening(old)) == (OK, b"")
    calls = load(relay.agent_socket("one"))
    assert calls.goes_on()
    until(lambda: time.monotonic() > expires, "the certificate to expire")
    pod.proxy.cut("rst")
    until(lambda: "link refused: sandbox=one" in relay.process.text(), "the refusal to be told")
    assert "our client certificate has expired: see `caa certs show`" in relay.process.text()
    (code, text), _ = relay.ask("Open", pod.opening(old), timeout=2.0)
    assert code != 0
    NodeAuthority.load_or_create(folder / "state").client_files()
    assert calls.goes_on(), text
    assert relay.links() == [("one", True, 1)]


def test_at_a_start_an_expired_client_certificate_is_told(relay: Any, folder: Path, make_pod: Any) -> None:
    old = short_lived(folder, -1.0)
    (code, text), _ = relay.ask("Open", make_pod(old, "one").opening(old))
    assert code == 16
    assert "podvm-one at 127.0.0.1" in text
    assert "our client certificate has expired: see `caa certs show`, and both clocks" in text


def test_a_pod_vm_whose_certificate_has_expired_is_told(relay: Any, folder: Path, make_pod: Any) -> None:
    old = NodeAuthority.load_or_create(folder / "state", clock=Skewed(-731 * DAY))
    pod = make_pod(old, "one")
    (code, text), _ = relay.ask("Open", pod.opening(NodeAuthority.load(folder / "state")))
    assert code == 16
    assert "certificate has expired (only a new pod VM gets another one, unless this clock is wrong)" in text


async def test_a_ca_rotates_and_goes_with_its_last_pod_vm(
    relay: Any, folder: Path, make_pod: Any, load: Any, until: Any
) -> None:
    authority = NodeAuthority.load_or_create(folder / "state")
    clock = Skewed()
    links = RelayLinks(relay.run / "relay.sock", relay.pods, tls=LinkTls(port=1, certificates=authority), dial_limit=5)
    records: dict[str, Sandbox] = {}
    rules = Rules(rotation=365 * DAY, warning=30 * DAY)
    aged = NodeAuthority.load_or_create(folder / "state", clock=clock)
    upkeep = Upkeep(certificates=aged, records=lambda: list(records.values()), links=links, rules=rules, clock=clock)

    pods = [make_pod(authority, "old")]
    authority.generations.add(datetime.now(UTC))
    pods.append(make_pod(authority, "new"))
    assert [pod.ca for pod in pods] == ["1", "2"]
    loads = {}
    for pod in pods:
        assert relay.ask("Open", pod.opening(authority)) == (OK, b"")
        loads[pod.name] = load(relay.agent_socket(pod.name))
        records[pod.name] = _record(pod)
    assert all(one.goes_on() for one in loads.values())

    clock.ahead = RETIRE_GRACE
    await upkeep.once()
    authority.issue_client("1")
    authority.issue_client("2")
    for pod in pods:
        pod.proxy.cut("rst")
    assert all(one.goes_on() for one in loads.values()), "each came back with its own CA"
    assert authority.generations.names() == ["1", "2"]

    del records["old"]  # a lost record: the link still counts
    await upkeep.once()
    assert authority.generations.names() == ["1", "2"]
    loads["old"].stop()
    await links.close(SandboxId("old"))
    await upkeep.once()
    assert authority.generations.names() == ["2"]
    assert not (folder / "state" / "tls" / "ca.key").exists()
    pods[1].proxy.cut("fin")
    assert loads["new"].goes_on()
    until(lambda: relay.process.text().count("link resumed: sandbox=new") == 2, "both cuts of the new one to be told")
    await links.disconnect()


def _record(pod: Pod) -> Sandbox:
    return Sandbox(
        id=SandboxId(pod.name),
        pod=PodSpec(pod_name=pod.name, pod_namespace="n", netns=""),
        phase=Phase.RUNNING,
        instance_name=f"podvm-{pod.name}",
        token="",
        boot_id="",
        created_at=time.time(),
        reached="link",
        ca=pod.ca,
    )


def test_an_operators_ca_rotates_with_both_in_one_file(relay: Any, folder: Path, behind_proxy: Any, load: Any) -> None:
    """As docs/operations/certificates.md has it: the new CA has the name of the old one, for the sessions' sake."""
    now = datetime.now(UTC)
    old, new = (pki.create_authority("operator", "ca", lifetime=9 * DAY, now=now) for _ in range(2))
    bundle, client, server = folder / "ca.crt", folder / "tls.crt", folder / "server.pem"

    def sign(ca: pki.Identity, path: Path, name: str) -> None:
        leaf = pki.issue(ca, pki.Profile("operator", name, DAY, server=bool(name)), now=now)
        fresh = path.with_suffix(".new")
        fresh.write_text(leaf.cert_pem + leaf.key_pem)
        fresh.replace(path)

    bundle.write_text(old.cert_pem + new.cert_pem)
    sign(old, client, "")
    sign(old, server, MANUAL_SERVER_NAME)
    guest, proxy = behind_proxy("pod", bundle, server=(server, server))
    opening = replace(guest.opening, port=proxy.port, ca=bundle, client=(client, client), name=MANUAL_SERVER_NAME)
    assert relay.ask("Open", opening.payload()) == (OK, b"")
    calls = load(relay.agent_socket())
    assert calls.goes_on()
    sign(new, client, "")
    proxy.cut("rst")
    assert calls.goes_on()
    assert relay.process.text().count("link resumed: sandbox=pod") == 1


@pytest.mark.parametrize(("made", "shown"), [("1", "2"), ("2", "1")])
def test_a_pod_vm_takes_no_client_of_another_generation(
    relay: Any, folder: Path, make_pod: Any, made: str, shown: str
) -> None:
    """Nor does the relay take its server."""
    authority = NodeAuthority.load_or_create(folder / "state")
    pods = {"1": make_pod(authority, "one")}
    authority.generations.add(datetime.now(UTC))
    pods["2"] = make_pod(authority, "two")
    pod = pods[made]
    (code, text), _ = relay.ask("Open", pod.opening(authority, shown))
    assert (code, "certificate verify failed" in text) == (16, True)
    right, wrong = authority.client_files(made), authority.client_files(shown)
    mixed = replace(pod.guest.opening, ca=Path(right.ca_file), client=(Path(wrong.cert_file), Path(wrong.key_file)))
    (code, text), _ = relay.ask("Open", replace(mixed, name=f"podvm-{pod.name}").payload())
    assert (code, "alert" in text) == (16, True)


def test_another_pod_vms_certificate_opens_nothing(relay: Any, folder: Path, make_pod: Any) -> None:
    """It is valid and of the same CA, and for servers only."""
    authority = NodeAuthority.load_or_create(folder / "state")
    pod, other = make_pod(authority, "one"), make_pod(authority, "two")
    stolen = folder / "two.cert", folder / "two.key"
    ca = Path(authority.client_files("1").ca_file)
    opening = replace(pod.guest.opening, ca=ca, client=stolen, name="podvm-one")
    (code, text), _ = relay.ask("Open", opening.payload())
    assert (code, "alert" in text) == (16, True), other.name


@pytest.mark.parametrize(
    "ahead",
    [timedelta(minutes=10), timedelta(minutes=-10), timedelta(minutes=-10) - CLIENT_LIFETIME + timedelta(seconds=30)],
    ids=["pod VM 10 min behind", "pod VM 10 min ahead", "10 min ahead, in the last moment of a certificate"],
)
def test_clocks_that_differ_by_ten_minutes(
    relay: Any, folder: Path, make_pod: Any, load: Any, ahead: timedelta
) -> None:
    authority = NodeAuthority.load_or_create(folder / "state", clock=Skewed(ahead))
    pod = make_pod(authority, "one")
    assert relay.ask("Open", pod.opening(authority)) == (OK, b"")
    calls = load(relay.agent_socket("one"))
    assert calls.goes_on()
    pod.proxy.cut("rst")
    assert calls.goes_on()


def test_clocks_that_differ_by_more_are_told(relay: Any, folder: Path, make_pod: Any) -> None:
    authority = NodeAuthority.load_or_create(folder / "state", clock=Skewed(timedelta(minutes=16)))
    (code, text), _ = relay.ask("Open", make_pod(authority, "one").opening(authority))
    assert code == 16
    assert "certificate is not yet valid (compare the clocks of both ends)" in text
