"""QEMU for images: boots one, with user data on a drive, and speaks to the agent in it as a node would."""

import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from caa.datapath import edits
from caa.testing.bootable import user_data
from caa.wire.certs import NodeAuthority
from podvm.image import tiny

NAME = "podvm-image-0a1b2c3d"
CACHE = Path(tiny.__file__).resolve().parents[2] / ".cache" / "image"
_HEADER = struct.Struct(">IIBB")


@dataclass
class Machine:
    """A QEMU process whose port 15150 is forwarded from `port` of this host."""

    process: subprocess.Popen[bytes]
    console_file: Path
    port: int
    authority: NodeAuthority
    started: float

    def console(self) -> str:
        """What the guest printed."""
        return self.console_file.read_text(errors="replace") if self.console_file.exists() else ""

    def call(self, service: str, method: str, *, within: float) -> bytes:
        """The status and payload of a ttrpc call's response; tried until the machine answers or `within` is over."""
        end = self.started + within
        while True:
            try:
                return self._call(service, method)
            except (OSError, EOFError) as error:
                why = f"no answer: {error!r}\n{self.console()[-4000:]}"
            alive = self.process.poll() is None and time.monotonic() < end
            assert alive, why
            time.sleep(0.02)

    def wait_for(self, text: str, *, within: float) -> None:
        """Until the console holds `text`."""
        end = self.started + within
        while text not in self.console():
            alive = self.process.poll() is None and time.monotonic() < end
            assert alive, f"no {text!r}\n{self.console()[-4000:]}"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _call(self, service: str, method: str) -> bytes:
        files = self.authority.client_files()
        context = ssl.create_default_context(cafile=files.ca_file)
        context.load_cert_chain(files.cert_file, files.key_file)
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=2) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as secured,
        ):
            secured.settimeout(10)
            request = edits.bytes_field(1, service.encode()) + edits.bytes_field(2, method.encode())
            secured.sendall(_HEADER.pack(len(request), 1, 1, 0) + request)
            size, _stream, kind, _flags = _HEADER.unpack(_receive(secured, 10))
            assert kind == 2
            return _receive(secured, size)


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError("closed")
        data += part
    return data


@dataclass
class Rack:
    """Where machines run; all of them are stopped at the end."""

    folder: Path
    authority: NodeAuthority
    machines: list[Machine] = field(default_factory=list)

    def drive(self, document: bytes | None = None) -> Path:
        """An ISO labelled `cidata` with the user data that a node would send, or with `document`."""
        content = self.folder / "cidata"
        content.mkdir(exist_ok=True)
        (content / "user-data").write_bytes(user_data(self.authority, NAME) if document is None else document)
        (content / "meta-data").write_text(f"instance-id: {NAME}\n")
        iso = self.folder / "cidata.iso"
        command = ["genisoimage", "-quiet", "-o", iso, "-volid", "cidata", "-joliet", "-rock", content]
        subprocess.run(command, check=True, capture_output=True)
        return iso

    def start(self, *arguments: str | Path, memory: int = 512) -> Machine:
        """Start QEMU with these further arguments."""
        port, number = _free_port(), len(self.machines)
        console = self.folder / f"console-{number}"
        forward = f"user,id=net0,net=10.199.0.0/24,host=10.199.0.1,hostfwd=tcp:127.0.0.1:{port}-:15150"
        command: list[str | Path] = [
            "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-m", str(memory), "-smp", "1",
            "-nodefaults", "-no-reboot", "-display", "none", "-serial", f"file:{console}",
            "-netdev", forward, "-device", "virtio-net-pci,netdev=net0,romfile=", *arguments,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        machine = Machine(process, console, port, self.authority, time.monotonic())
        self.machines.append(machine)
        return machine


def drive_arguments(file: Path, number: int = 0) -> list[str]:
    """QEMU's arguments for a raw disk on virtio that is only read."""
    return [
        "-drive", f"file={file},if=none,id=drive{number},format=raw,readonly=on",
        "-device", f"virtio-blk-pci,drive=drive{number}",
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path, NodeAuthority.load_or_create(tmp_path))
    yield made
    for machine in made.machines:
        machine.stop()


@pytest.fixture(scope="session")
def tiny_image() -> tiny.Tiny:
    """The tiny image, built in the checkout's cache."""
    return tiny.build(CACHE)


@pytest.fixture
def boot_tiny(rack: Rack, tiny_image: tiny.Tiny) -> Callable[..., Machine]:
    """Boot the tiny image with a config drive; `words` go to the kernel's command line."""

    def boot(document: bytes | None = None, words: str = "") -> Machine:
        direct: Sequence[str | Path] = ("-kernel", tiny_image.kernel, "-initrd", tiny_image.initrd)
        cmdline = f"{tiny_image.cmdline} {words}".strip()
        return rack.start(*direct, "-append", cmdline, *drive_arguments(rack.drive(document)))

    return boot
