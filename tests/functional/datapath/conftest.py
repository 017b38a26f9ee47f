"""Real processes for the data path: certificates, an agent that echoes, the forwarder, the relay, a shim."""

import contextlib
import datetime
import os
import random
import select
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from caa.datapath import edits, frames, greeting
from caa.relay import launch
from podvm import forwarder

HEADER = struct.Struct(">IIBB")
SERVER_NAME = "podvm-test-1"


@dataclass
class Authority:
    """A CA and the files it made, in one folder."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = self._sign(subject, self.key, None, days=30)
        self.file = self.folder / f"{self.name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def leaf(self, file: str, name: str, *, server: bool, days: int = 30) -> tuple[Path, Path]:
        """Certificate and key of a server or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = self._sign(subject, key, usage, days=days)
        paths = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        paths[1].write_bytes(pem)
        return paths

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, usage: x509.ObjectIdentifier | None, *, days: int
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        is_ca = usage is None
        issuer = subject if is_ca else self.certificate.subject
        begin, end = now - datetime.timedelta(days=60), now + datetime.timedelta(days=days)
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), begin, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False), critical=True
        )
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if usage is not None:
            name = subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(str(name))]), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@dataclass
class Certificates:
    """What the tests need; `other` is a CA that nobody trusts."""

    ca: Authority
    other: Authority

    def __post_init__(self) -> None:
        self.server = self.ca.leaf("server", SERVER_NAME, server=True)
        self.expired = self.ca.leaf("expired", SERVER_NAME, server=True, days=-1)
        self.client = self.ca.leaf("client", "caa", server=False)
        self.stranger = self.other.leaf("stranger", "caa", server=False)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    return Certificates(Authority(folder, "ca"), Authority(folder, "other"))


def receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError(f"{len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def read_frame(sock: socket.socket) -> tuple[int, int, bytes]:
    size, stream, kind, _ = HEADER.unpack(receive(sock, 10))
    return stream, kind, receive(sock, size)


def status_of(payload: bytes) -> tuple[int, str]:
    body = edits.last_bytes(payload, 1)
    return edits.last_varint(body, 1), edits.last_bytes(body, 2).decode()


@dataclass
class EchoAgent:
    """Answers a call with its payload. `ReadStdout` answers with as many bytes as the payload's number says.

    `Never` is not answered, `Pause` reads nothing for 1.5 s. `seen` has (connection, stream, service, method, payload)
    of all but `Echo`. Refuses ids
    that do not grow by closing, as a Go server would refuse the call.
    """

    path: Path
    seed: int = 0
    fragments: bool = False
    mute: bool = False  # nothing but `Echo` is answered
    seen: list[tuple[int, int, str, str, bytes]] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.close()
        for sock in self.connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(sock)
            threading.Thread(target=self._serve, args=(len(self.connections), sock), daemon=True).start()

    def _serve(self, number: int, sock: socket.socket) -> None:
        chance = random.Random(self.seed)
        data = bytearray()
        last = 0
        try:
            while piece := sock.recv(1 << 18):
                data += piece
                answers = []
                at = 0
                while len(data) - at >= 10:
                    size, stream, kind, _ = HEADER.unpack_from(data, at)
                    if len(data) - at < 10 + size:
                        break
                    if kind != 1 or stream <= last or not stream & 1:
                        return
                    last = stream
                    answer = self._answer(number, stream, bytes(data[at + 10 : at + 10 + size]))
                    if answer is not None:
                        answers.append(answer)
                    at += 10 + size
                del data[:at]
                chance.shuffle(answers)
                self._say(sock, b"".join(answers), chance)
        except OSError:
            pass
        finally:
            sock.close()

    def _answer(self, number: int, stream: int, envelope: bytes) -> bytes | None:
        request = frames.Request(envelope)
        if request.method == "Echo":
            return frames.answer(stream, request.payload)
        self.seen.append((number, stream, request.service, request.method, request.payload))
        if request.method == "Never" or self.mute:
            return None
        if request.method == "Pause":
            time.sleep(1.5)
        if request.method == "ReadStdout":
            return frames.answer(stream, bytes(edits.last_varint(request.payload, 3)))
        return frames.answer(stream, request.payload)

    def _say(self, sock: socket.socket, data: bytes, chance: random.Random) -> None:
        view = memoryview(data)
        while view:
            size = chance.choice((1, 7, 10, 200, 4000, 40_000)) if self.fragments else len(view)
            sock.sendall(view[:size])
            view = view[size:]


@dataclass
class Shim:
    """A client with blocking calls on one connection."""

    path: Path
    sock: socket.socket = field(init=False)
    last: int = -1

    def __post_init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))

    def send(self, method: str, payload: bytes = b"", *, service: str = frames.AGENT, timeout: int = 0) -> int:
        self.last += 2
        self.sock.sendall(frames.call(service, method, stream=self.last, payload=payload, timeout=timeout))
        return self.last

    def answer(self) -> tuple[int, tuple[int, str], bytes]:
        """(stream, status, payload) of the next answer."""
        stream, kind, body = read_frame(self.sock)
        assert kind == 2
        return stream, status_of(body), edits.last_bytes(body, 2)

    def call(
        self, method: str, payload: bytes = b"", *, service: str = frames.AGENT, timeout: int = 0
    ) -> tuple[tuple[int, str], bytes]:
        sent = self.send(method, payload, service=service, timeout=timeout)
        stream, status, answer = self.answer()
        assert stream == sent
        return status, answer

    def ended(self) -> bool:
        """Wait for the end of the connection."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.sock.close()


def wait_until(true: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def accepts(path: Path) -> bool:
    """Whether somebody listens at a socket file; one may be left over from a process that was killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def free_port(family: int = socket.AF_INET) -> int:
    with socket.socket(family) as sock:
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        return int(sock.getsockname()[1])


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens there, from the kernel's table: a connection would be one more client."""
    table = "/proc/net/tcp6" if ":" in host else "/proc/net/tcp"
    lines = Path(table).read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


@dataclass
class Process:
    """A process of ours with its stderr in a file."""

    argv: list[str]
    log: Path

    def __post_init__(self) -> None:
        with self.log.open("wb") as file:
            self.child = subprocess.Popen(self.argv, stderr=file, stdout=file, env={}, cwd="/")

    @property
    def pid(self) -> int:
        return self.child.pid

    def text(self) -> str:
        return self.log.read_text()

    def status(self, name: str) -> int:
        """A number of /proc/<pid>/status, in KiB where it is one of memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name + ":")).split()[1])

    def stop(self) -> int:
        self.child.terminate()
        return self.child.wait(10)


@dataclass
class Relay:
    """A running relay with its folders below `folder`."""

    folder: Path
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.hypervisor = self.folder / "h" / "hypervisor.sock"
        self.successor = self.hypervisor.exists()
        self.pods = self.folder / "p"
        self.run = self.folder / "r"
        self.state = self.folder / "s"
        self.process = Process(self.argv(), self.folder / f"relay-{len(list(self.folder.glob('relay-*.log')))}.log")
        wait_until(lambda: self._serves() or self.process.child.poll() is not None, "the relay")

    def _serves(self) -> bool:
        return "serving" in self.process.text() if self.successor else accepts(self.hypervisor)

    def argv(self) -> list[str]:
        return launch.command(
            hypervisor_socket=str(self.hypervisor),
            pods_dir=str(self.pods),
            run_dir=str(self.run),
            state_dir=str(self.state),
            extra=("--niceness", "0", "--successor-wait-seconds", "0", *self.extra),
        )

    def agent_socket(self, sandbox: str = "pod") -> Path:
        return self.pods / sandbox / "agent.ttrpc"

    def ask(self, method: str, payload: bytes, timeout: float = 10.0) -> tuple[tuple[int, str], bytes]:
        commands = Shim(self.run / "relay.sock")
        try:
            return commands.call(method, payload, service="caa.relay.v1.AgentLinks", timeout=int(timeout * 1e9))
        finally:
            commands.close()

    def close(self, sandbox: str = "pod") -> tuple[int, str]:
        return self.ask("Close", edits.bytes_field(1, sandbox.encode()))[0]

    def links(self) -> list[tuple[str, bool, int]]:
        _, payload = self.ask("List", b"")
        return [
            (edits.last_bytes(link, 1).decode(), bool(edits.last_varint(link, 2)), edits.last_varint(link, 3))
            for link in edits.all_bytes(payload, 1)
        ]


@dataclass(frozen=True)
class Opening:
    """An Open request, ready to be changed with `dataclasses.replace`."""

    port: int
    ca: Path | None = None
    client: tuple[Path, Path] | None = None
    sandbox: str = "pod"
    addresses: tuple[str, ...] = ("127.0.0.1",)
    name: str = SERVER_NAME
    version: str = ""
    skip_verify: bool = False
    disable_tls: bool = False

    def payload(self) -> bytes:
        text = edits.bytes_field
        parts = [text(1, self.sandbox.encode()), *(text(2, one.encode()) for one in self.addresses)]
        parts += [edits.varint_field(3, self.port), text(4, self.name.encode()), text(8, self.version.encode())]
        if self.ca is not None:
            parts.append(text(5, str(self.ca).encode()))
        if self.client is not None:
            parts += [text(6, str(self.client[0]).encode()), text(7, str(self.client[1]).encode())]
        parts += [edits.varint_field(10, self.skip_verify), edits.varint_field(11, self.disable_tls)]
        return b"".join(parts)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a short name: a socket's path holds 107 bytes."""
    path = Path(f"/tmp/dp-{os.getpid()}-{random.randrange(1 << 32):x}")
    path.mkdir(mode=0o755)
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def start_relay(folder: Path) -> Iterator[Callable[..., Relay]]:
    relays: list[Relay] = []

    def start(*extra: str) -> Relay:
        relays.append(Relay(folder, extra))
        return relays[-1]

    yield start
    for relay in relays:
        if relay.process.child.poll() is None:
            relay.process.stop()
        assert "crashed" not in relay.process.text(), relay.process.text()


@pytest.fixture
def relay(start_relay: Callable[..., Relay]) -> Relay:
    return start_relay()


@pytest.fixture
def agent(folder: Path) -> Iterator[EchoAgent]:
    agent = EchoAgent(folder / "agent.sock")
    yield agent
    agent.stop()


@dataclass
class Guest:
    """A running forwarder."""

    process: Process
    port: int
    opening: Opening


@pytest.fixture
def start_guest(folder: Path, certificates: Certificates) -> Iterator[Callable[..., Guest]]:
    """Starts a forwarder in front of an agent; further arguments are its flags."""
    guests: list[Guest] = []

    def start(
        agent: Path,
        *flags: str,
        host: str = "127.0.0.1",
        port: int = 0,
        server: tuple[Path, Path] | None = None,
    ) -> Guest:
        port = port or free_port(socket.AF_INET6 if ":" in host else socket.AF_INET)
        cert, key = server or certificates.server
        tls = ["-ca-cert-file", str(certificates.ca.file), "-cert-file", str(cert), "-cert-key", str(key)]
        listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        argv = forwarder.command("-kata-agent-socket", str(agent), "-listen", listen, "-niceness", "0", *tls, *flags)
        process = Process(argv, folder / f"forwarder-{len(guests)}.log")
        opening = Opening(port, certificates.ca.file, certificates.client, addresses=(host,))
        guests.append(Guest(process, port, opening))
        wait_until(lambda: listens(port, host) or process.child.poll() is not None, "the forwarder")
        return guests[-1]

    yield start
    for guest in guests:
        if guest.process.child.poll() is None:
            guest.process.stop()
        assert "crashed" not in guest.process.text(), guest.process.text()


@pytest.fixture
def guest(start_guest: Callable[..., Guest], agent: EchoAgent) -> Guest:
    return start_guest(agent.path)


@pytest.fixture
def shim() -> Iterator[Callable[[Path], Shim]]:
    """Connects to a socket."""
    shims: list[Shim] = []

    def connect(path: Path) -> Shim:
        shims.append(Shim(path))
        return shims[-1]

    yield connect
    for one in shims:
        one.close()


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for a condition."""
    return wait_until


@pytest.fixture
def launch_process(folder: Path) -> Iterator[Callable[..., Process]]:
    """Starts any process; ends it after the test."""
    processes: list[Process] = []

    def start(argv: list[str]) -> Process:
        processes.append(Process(argv, folder / f"process-{len(processes)}.log"))
        return processes[-1]

    yield start
    for process in processes:
        if process.child.poll() is None:
            process.stop()


@pytest.fixture
def make_agent(folder: Path) -> Iterator[Callable[..., EchoAgent]]:
    """Agents beside the usual one."""
    agents: list[EchoAgent] = []

    def make(name: str, *, fragments: bool = False, seed: int = 0) -> EchoAgent:
        agents.append(EchoAgent(folder / name, seed=seed, fragments=fragments))
        return agents[-1]

    yield make
    for one in agents:
        one.stop()


@dataclass
class CuttingProxy:
    """TCP between relay and forwarder that breaks as networks do.

    `cut(kind)` breaks what is there now. With `chance` set, each new connection breaks by itself after random bytes.
    `dark` refuses new connections. Kinds: `rst` and `fin` to both ends; `rst-relay`, `rst-guest`: one end hears it, the
    other only later; `hole`: everything is swallowed; `half`: only the forwarder's bytes still pass; `late`: what the
    relay sent is delivered after the relay has long given up.
    """

    dest: int
    chance: random.Random | None = None
    dark: bool = False
    cuts: dict[str, int] = field(default_factory=dict)
    pause: float = 1.2  # longest life of a connection that is silently broken
    KINDS = ("rst", "fin", "rst-relay", "rst-guest", "hole", "half", "late")

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._links: list[ProxiedLink] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.dark:
                reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.dest), timeout=5)
            except OSError:
                reset(near)
                continue
            self._links = [link for link in self._links if not link.over]
            self._links.append(ProxiedLink(self, near, far))

    def cut(self, kind: str) -> None:
        for link in self._links:
            link.breaking = kind
            link.wake()

    def stop(self) -> None:
        self._listener.close()
        self.cut("rst")


def reset(sock: socket.socket) -> None:
    """Close with an RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class ProxiedLink:
    """One connection through the proxy, in a thread of its own."""

    def __init__(self, proxy: CuttingProxy, near: socket.socket, far: socket.socket) -> None:
        self.proxy, self.near, self.far = proxy, near, far
        self.breaking = ""
        self.over = False
        self._left = 1 << 62
        chance = proxy.chance
        if chance is not None:
            self._left = chance.randrange(1, 6000) if chance.random() < 0.25 else int(10 ** chance.uniform(3, 6.5))
        self._wake, self._woken = socket.socketpair()
        for sock in (near, far):
            sock.settimeout(5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._run, daemon=True).start()

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def _run(self) -> None:
        try:
            self._pass_until_cut()
            if self.breaking:
                self.proxy.cuts[self.breaking] = self.proxy.cuts.get(self.breaking, 0) + 1
                self._break(self.breaking)
        except OSError:
            pass
        finally:
            for sock in (self.near, self.far, self._wake, self._woken):
                sock.close()
            self.over = True

    def _pass_until_cut(self) -> None:
        other = {self.near: self.far, self.far: self.near}
        while not self.breaking:
            for sock in select.select([self.near, self.far, self._woken], [], [])[0]:
                if sock is self._woken:
                    return
                data = sock.recv(65536)
                if not data:
                    return
                chance = self.proxy.chance
                if chance is None:
                    other[sock].sendall(data)
                    continue
                other[sock].sendall(data[: self._left])
                self._left -= len(data)
                if self._left <= 0:
                    self.breaking = chance.choice(CuttingProxy.KINDS)
                    return

    def _break(self, kind: str) -> None:
        pause = self.proxy.pause * (self.proxy.chance.random() if self.proxy.chance else 1)
        if kind in ("rst", "rst-relay"):
            reset(self.near)
        if kind in ("rst", "rst-guest"):
            reset(self.far)
        if kind in ("rst-relay", "rst-guest", "hole"):
            time.sleep(pause)
        elif kind == "half":
            self._pass_answers(time.monotonic() + pause)
        elif kind == "late":
            time.sleep(pause)
            self.near.settimeout(0.05)
            while data := self.near.recv(65536):
                self.far.sendall(data)

    def _pass_answers(self, end: float) -> None:
        while time.monotonic() < end:
            if select.select([self.far], [], [], 0.05)[0]:
                data = self.far.recv(65536)
                if not data:
                    return
                self.near.sendall(data)


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., CuttingProxy]]:
    """Starts a proxy in front of a port."""
    proxies: list[CuttingProxy] = []

    def start(dest: int, chance: random.Random | None = None) -> CuttingProxy:
        proxies.append(CuttingProxy(dest, chance))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.stop()


@dataclass
class SessionClient:
    """A client of its own that says HELLO to a forwarder."""

    port: int
    ca: Path
    client: tuple[Path, Path]
    identity: bytes
    secret: bytes

    def __post_init__(self) -> None:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(*map(str, self.client))
        context.set_alpn_protocols([greeting.PROTOCOL])
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.sock = context.wrap_socket(raw, server_hostname=SERVER_NAME)
        assert self.sock.selected_alpn_protocol() == greeting.PROTOCOL

    def hello(self, *, new: bool = False, attempt: int = 1, count: int = 0) -> tuple[str, bytes]:
        """What the forwarder says to it."""
        self.sock.sendall(greeting.hello(self.identity, self.secret, new=new, attempt=attempt, count=count))
        data = self.sock.recv(greeting.GREETING)
        if not data:
            return "nothing", b""
        kinds = {greeting.WELCOME: "welcome", greeting.LATE: "late", greeting.GONE: "gone"}
        return kinds[greeting.Greeting(data).kind], data


@pytest.fixture
def session_client(guest: Guest, certificates: Certificates) -> Iterator[Callable[..., SessionClient]]:
    clients: list[SessionClient] = []

    def connect(client: tuple[Path, Path], identity: bytes = b"", secret: bytes = b"") -> SessionClient:
        named = identity or os.urandom(16), secret or os.urandom(32)
        clients.append(SessionClient(guest.port, certificates.ca.file, client, *named))
        return clients[-1]

    yield connect
    for one in clients:
        one.sock.close()


class StandInNode:
    """Listens as the node does, and lets the test answer."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._listener.settimeout(10)
        self._connections: list[socket.socket] = []

    def next_call(self) -> tuple[socket.socket, int]:
        """The next connection, and the stream id of the first call on it."""
        connection, _ = self._listener.accept()
        connection.settimeout(10)
        self._connections.append(connection)
        stream, kind, _ = read_frame(connection)
        assert kind == 1
        return connection, stream

    def close(self) -> None:
        for sock in (self._listener, *self._connections):
            sock.close()


@pytest.fixture
def launch_node() -> Iterator[Callable[[Relay], StandInNode]]:
    """Puts a stand-in for the node beside a relay."""
    nodes: list[StandInNode] = []

    def start(relay: Relay) -> StandInNode:
        nodes.append(StandInNode(relay.run / "node.sock"))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()


class Heir:
    """A successor that is written anew here, and ends after any of its steps."""

    def __init__(self, relay: Relay) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(relay.state / "handover.sock"))

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.sock.sendall(struct.pack(">IHH", len(payload), kind, 0) + payload)

    def hear(self) -> tuple[int, bytes]:
        """The next parcel's kind and payload; its descriptors are closed."""
        data, fds, _, _ = socket.recv_fds(self.sock, 8, 64)
        for fd in fds:
            os.close(fd)
        if not data:
            return 0, b""
        size, kind, _ = struct.unpack(">IHH", data)
        return kind, receive(self.sock, size)

    def hello(self, oldest: int, newest: int) -> str | int:
        """The format that is spoken, or why there is none."""
        self.say(1, edits.varint_field(1, oldest) + edits.varint_field(2, newest))
        kind, payload = self.hear()
        return edits.last_varint(payload, 1) if kind == 2 else edits.last_bytes(payload, 1).decode()

    def go(self, steps: int) -> set[str]:
        """Do so many steps, then vanish; returns the pods that were confirmed."""
        confirmed: set[str] = set()
        name = edits.bytes_field(1, b"one")
        script = [(1, b"\x08\x01\x10\x01", 1), (4, name, 1), (6, b"", 1), (8, name, 1)]
        script += [(8, edits.bytes_field(1, b"two"), 1), (10, name, 0), (11, b"", 1), (0, b"", 0)]
        for kind, payload, answers in script[:steps]:
            if kind:
                self.say(kind, payload)
            if kind == 10:
                confirmed.add("one")
            for _ in range(answers):
                assert self.hear()[0]
        self.sock.close()
        return confirmed


@pytest.fixture
def heir() -> Iterator[Callable[[Relay], Heir]]:
    """A successor in the hands of the test."""
    heirs: list[Heir] = []

    def make(relay: Relay) -> Heir:
        heirs.append(Heir(relay))
        return heirs[-1]

    yield make
    for one in heirs:
        one.sock.close()
