"""Machines under QEMU for tests of images: user data on a drive, firmware, a TPM, and calls to the agent in them."""

import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caa.datapath import edits
from caa.testing.bootable import user_data
from caa.wire.certs import NodeAuthority

NAME = "podvm-image-0a1b2c3d"
SERVING = 1  # grpc.HealthCheckResponse.ServingStatus
_HEADER = struct.Struct(">IIBB")
_FIRMWARE = Path("/usr/share/OVMF")
_SECURE = ("-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")


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

    def check(self, *, within: float) -> int:
        """The agent's health through TLS and forwarder, asked until it answers or `within` seconds are over."""
        end = self.started + within
        while True:
            try:
                response = self._call("grpc.Health", "Check")
                return edits.last_varint(edits.last_bytes(response, 2), 1)
            except (OSError, EOFError) as error:
                self._go_on(end, f"no answer: {error!r}")

    def wait_for(self, text: str, *, within: float) -> None:
        """Until the console holds `text`."""
        end = self.started + within
        while text not in self.console():
            self._go_on(end, f"no {text!r} on the console")

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _go_on(self, end: float, why: str) -> None:
        alive = self.process.poll() is None and time.monotonic() < end
        assert alive, f"{why}\n{self.console()[-4000:]}"
        time.sleep(0.02)

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


@dataclass
class Rack:
    """Where machines run; `stop` ends all of them and their TPMs."""

    folder: Path
    authority: NodeAuthority
    machines: list[Machine] = field(default_factory=list)
    tpms: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def drive(self, document: bytes | None = None, *, initdata: str = "") -> Path:
        """An ISO labelled `cidata` with the user data that a node would send, or with `document`."""
        content = self.folder / "cidata"
        content.mkdir(exist_ok=True)
        own = user_data(self.authority, NAME, initdata=initdata)
        (content / "user-data").write_bytes(own if document is None else document)
        (content / "meta-data").write_text(f"instance-id: {NAME}\n")
        iso = self.folder / "cidata.iso"
        command = ["genisoimage", "-quiet", "-o", str(iso), "-volid", "cidata", "-joliet", "-rock", str(content)]
        subprocess.run(command, check=True, capture_output=True)
        return iso

    def start(self, *arguments: str | Path, memory: int = 512) -> Machine:
        """Start QEMU, always emulated, with these further arguments."""
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

    def start_disk(self, disk: Path, *more: Path, room: int = 0, secure_boot: bool = False) -> Machine:
        """Boot a disk under UEFI with a TPM of its own, and `more` disks behind it; nothing is written to any.

        `room` bytes behind the disk can be written, and are gone with the machine. `secure_boot` starts only what
        Debian's snake oil key has signed (package ovmf).
        """
        variables = self.folder / f"variables-{len(self.machines)}.fd"
        kind = ".snakeoil" if secure_boot else ""
        shutil.copyfile(_FIRMWARE / f"OVMF_VARS_4M{kind}.fd", variables)
        firmware = [
            *(_SECURE if secure_boot else ()),
            "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_FIRMWARE}/OVMF_CODE_4M{kind}.fd",
            "-drive", f"if=pflash,format=raw,unit=1,file={variables}",
            "-chardev", f"socket,id=tpm,path={self._start_tpm()}",
            "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0",
        ]  # fmt: skip
        disks = [*(self._roomy(disk, room) if room else drive_arguments(disk))]
        disks += [word for number, file in enumerate(more, 1) for word in drive_arguments(file, number)]
        return self.start(*firmware, *disks, memory=1536)

    def stop(self) -> None:
        """End everything."""
        for machine in self.machines:
            machine.stop()
        for process in self.tpms:
            process.kill()
            process.wait()

    def _roomy(self, disk: Path, room: int) -> Sequence[str]:
        """QEMU's arguments for a larger disk on virtio that begins as `disk`."""
        layer = self.folder / f"disk-{len(self.machines)}.qcow2"
        size = disk.stat().st_size + room
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk), str(layer), str(size)]
        subprocess.run(command, check=True, capture_output=True)
        return [
            "-drive", f"file={layer},if=none,id=drive0,format=qcow2",
            "-device", "virtio-blk-pci,drive=drive0",
        ]  # fmt: skip

    def _start_tpm(self) -> Path:
        state = self.folder / f"tpm-{len(self.tpms)}"
        state.mkdir()
        control = state / "control"
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={control}"]
        log = (state / "log").open("wb")
        with log:
            self.tpms.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        end = time.monotonic() + 10
        while not control.exists():
            assert time.monotonic() < end, (state / "log").read_text()
            time.sleep(0.02)
        return control


def drive_arguments(file: Path, number: int = 0) -> Sequence[str]:
    """QEMU's arguments for a raw disk on virtio that is only read."""
    return [
        "-drive", f"file={file},if=none,id=drive{number},format=raw,readonly=on",
        "-device", f"virtio-blk-pci,drive=drive{number}",
    ]  # fmt: skip


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError("closed")
        data += part
    return data


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
