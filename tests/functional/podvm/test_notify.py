"""The forwarder as a notify service, as systemd sees it: one datagram, from the process it started."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# The first stage without a network of its own: everything else is the real program, up to the exec.
PROGRAM = (
    "import sys; sys.path.insert(0, {root!r})\n"
    "from podvm import cli, linklocal, network\n"
    "network.setup = lambda *what, tunnel: None\n"
    "linklocal.deny = lambda *what: None\n"
    "sys.exit(cli.main(sys.argv[1:]))\n"
)
APF = {
    "podip": "10.244.1.5/24", "interface": "eth0", "worker-node-ip": "10.0.0.1/24", "tunnel-type": "vxlan",
    "mtu": 1450, "vxlan-port": 4789, "vxlan-id": 555000, "pod-hw-addr": "0a:58:0a:f4:01:05",
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_comes_from_the_main_process_once_it_listens(tmp_path: Path, abstract: bool) -> None:
    name = f"@caa-notify-{os.getpid()}" if abstract else str(tmp_path / "notify")
    (tmp_path / "apf.json").write_text(json.dumps({"pod-network": APF}))
    port = free_port()
    with socket.socket(socket.AF_UNIX) as agent, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        agent.bind(str(tmp_path / "agent.sock"))
        agent.listen()
        notify.bind("\0" + name[1:] if abstract else name)
        notify.settimeout(20)
        notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        flags = ["-config", str(tmp_path / "apf.json"), "-kata-agent-socket", str(tmp_path / "agent.sock")]
        line = [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), "agent-protocol-forwarder", *flags]
        process = subprocess.Popen(
            [*line, "-disable-tls", "-listen", f"127.0.0.1:{port}"],
            env={**os.environ, "NOTIFY_SOCKET": name},
        )
        try:
            data, ancillary, _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(12))
            assert data == b"READY=1"
            sender = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            assert sender == process.pid  # NotifyAccess=main believes nobody else
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                pass
        finally:
            process.terminate()
            assert process.wait(10) == 0
        notify.setblocking(False)
        with pytest.raises(BlockingIOError):
            notify.recv(4096)


def test_a_forwarder_that_cannot_start_is_never_ready(tmp_path: Path) -> None:
    (tmp_path / "apf.json").write_text("{}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.setblocking(False)
        line = [sys.executable, "-m", "podvm", "agent-protocol-forwarder", "-config", str(tmp_path / "apf.json")]
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(line, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert "agent-protocol-forwarder cannot start: apf.json" in done.stdout
        with pytest.raises(BlockingIOError):
            notify.recv(4096)
