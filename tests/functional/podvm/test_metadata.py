"""User data from each cloud's metadata service: strict fakes over loopback HTTP, faults, deadlines, wrong clouds."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from caa.errors import CaaError, DeadlineExceeded, InvalidInput, Unavailable
from podvm import provision
from podvm.clouds import sources
from podvm.clouds.alibabacloud import AlibabaCloud
from podvm.clouds.aws import Aws
from podvm.clouds.azure import Azure
from podvm.clouds.gcp import Gcp
from podvm.clouds.ibmcloud import IbmCloud
from podvm.clouds.machine import Machine
from podvm.clouds.metadata import Service
from podvm.provision import Rules
from tests.fakes.metadata import clouds as fakes
from tests.fakes.metadata.server import MetadataServer, Tokens

DOCUMENT = b'#cloud-config\nwrite_files:\n  - path: "/run/peerpod/apf.json"\n    content: "{}"\n'
SOURCES: dict[str, Any] = {
    "aws": Aws, "azure": Azure, "gcp": Gcp, "alibabacloud": AlibabaCloud, "ibmcloud": IbmCloud,
}  # fmt: skip
MACHINE = Machine(Path("/nonexistent"))


@contextmanager
def cloud(name: str, fake: Any = None) -> Iterator[tuple[MetadataServer, Any]]:
    with MetadataServer(fake or fakes.CLOUDS[name](DOCUMENT)) as server:
        yield server, SOURCES[name](MACHINE, server.service(name))


@pytest.mark.parametrize("name", SOURCES)
def test_the_document_arrives(name: str) -> None:
    with cloud(name) as (server, source):
        assert source.fetch(5.0) == DOCUMENT
        assert source.name == name
        assert {status for _, _, status in server.seen} == {200}


@pytest.mark.parametrize("name", SOURCES)
def test_a_vm_without_user_data_is_told_so_at_once(name: str) -> None:
    with cloud(name, fakes.CLOUDS[name](None)) as (server, source):
        with pytest.raises(InvalidInput, match=rf"{name}: .*user.data"):
            provision.fetch(source, Rules())
        assert len(server.seen) <= 2


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("status", [429, 500, 503, 410])
def test_what_passes_by_itself_is_tried_again(name: str, status: int) -> None:
    with cloud(name) as (server, source):
        server.faults.append(status)
        assert provision.fetch(source, Rules()) == DOCUMENT


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("status", [301, 302, 400, 403])
def test_no_other_status_is(name: str, status: int) -> None:
    with cloud(name) as (server, source):
        server.faults.extend([status] * 2)
        with pytest.raises((InvalidInput, Unavailable), match=f"{status}|Metadata-Flavor"):
            source.fetch(5.0)


def test_aws_asks_for_a_token_and_never_without_one() -> None:
    with cloud("aws") as (server, source):
        source.fetch(5.0)
        assert server.seen == [("PUT", "/latest/api/token", 200), ("GET", "/latest/user-data", 200)]


def test_aws_falls_back_to_nothing_when_the_token_is_refused() -> None:
    with cloud("aws", fakes.Aws(DOCUMENT, enabled=False)) as (server, source):
        with pytest.raises(InvalidInput, match="403; enable the instance's metadata endpoint"):
            source.fetch(5.0)
        assert server.seen == [("PUT", "/latest/api/token", 403)]


def test_an_expired_token_is_no_token() -> None:
    late = iter([0.0, 100.0])
    with (
        cloud("aws", fakes.Aws(DOCUMENT, tokens=Tokens(now=lambda: next(late)))) as (_, source),
        pytest.raises(InvalidInput, match="401"),
    ):
        source.fetch(5.0)


@pytest.mark.parametrize("fake", [fakes.AlibabaCloud(DOCUMENT, hardened=False, tokens_known=False)])
def test_alibaba_without_tokens(fake: fakes.AlibabaCloud) -> None:
    with cloud("alibabacloud", fake) as (server, source):
        assert source.fetch(5.0) == DOCUMENT
        assert [status for _, _, status in server.seen] == [404, 200]


def test_gcp_hands_out_plain_text_too() -> None:
    with cloud("gcp", fakes.Gcp(DOCUMENT, encode=False)) as (_, source):
        assert source.fetch(5.0) == DOCUMENT


def test_gcp_believes_nobody_who_does_not_say_his_name() -> None:
    with cloud("gcp", fakes.Azure(DOCUMENT)) as (_, source), pytest.raises(Unavailable, match="Metadata-Flavor"):
        source.fetch(5.0)


def test_ibm_with_its_service_switched_off() -> None:
    with (
        cloud("ibmcloud", fakes.IbmCloud(DOCUMENT, enabled=False)) as (_, source),
        pytest.raises(InvalidInput, match="enable the instance's metadata service"),
    ):
        source.fetch(5.0)


@pytest.mark.parametrize("name", SOURCES)
def test_a_proxy_in_the_environment_is_not_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with cloud(name) as (_, source):
        assert source.fetch(5.0) == DOCUMENT


@contextmanager
def raw_server(answer: bytes, *, pause: float = 0.0) -> Iterator[int]:
    """Answers everybody with the same bytes, one by one when there is a pause."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    for byte in [answer[at : at + 1] for at in range(len(answer))] if pause else [answer]:
                        connection.sendall(byte)
                        time.sleep(pause)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 smtp ready\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n\r\n#cloud-config of unknown length",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 999999999999 OK\r\n\r\n",
    ],
)
def test_what_is_not_http_is_no_answer(answer: bytes) -> None:
    with raw_server(answer) as port, pytest.raises(Unavailable, match="azure: GET /metadata/"):
        Azure(MACHINE, Service("azure", "127.0.0.1", port=port)).fetch(2.0)


def test_a_server_that_drips_is_cut_off() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + b"x" * 400
    with raw_server(answer, pause=0.02) as port:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            Azure(MACHINE, Service("azure", "127.0.0.1", port=port)).fetch(0.5)
        assert time.monotonic() - began < 3


def test_an_endless_document_is_refused() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"#" * ((1 << 20) + 4096)
    with raw_server(answer) as port, pytest.raises(InvalidInput, match="larger than 1048576 bytes"):
        Azure(MACHINE, Service("azure", "127.0.0.1", port=port)).fetch(5.0)


def test_the_deadline_is_real_and_names_the_last_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unanswered:
        service = Service("azure", "127.0.0.1", port=unanswered.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"no user data within 1\.5 s: azure: GET .*timed out"):
            provision.fetch(Azure(MACHINE, service), Rules(fetch_seconds=1.5))
        assert 1.0 < time.monotonic() - began < 4


def test_a_network_that_comes_late() -> None:
    """DHCP: the first tries are refused, then the service is there."""
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    started: list[MetadataServer] = []

    def start() -> None:
        started.append(MetadataServer(fakes.Aws(DOCUMENT), port=port).__enter__())

    timer = threading.Timer(0.6, start)
    timer.start()
    try:
        assert provision.fetch(Aws(MACHINE, Service("aws", "127.0.0.1", port=port)), Rules()) == DOCUMENT
    finally:
        timer.join()
        started[0].__exit__(None, None, None)


def smbios(root: Path, **strings: str) -> Machine:
    folder = root / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    for name, text in strings.items():
        (folder / name).write_text(f"{text}\n")
    return Machine(root)


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_machines_own_cloud_is_asked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other source sends anything: every metadata service but the right one fails the test."""
    strings = {
        "aws": {"sys_vendor": "Amazon EC2"},
        "azure": {"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"},
        "gcp": {"sys_vendor": "Google", "product_name": "Google Compute Engine"},
        "alibabacloud": {"sys_vendor": "Alibaba Cloud", "product_name": "Alibaba Cloud ECS"},
        "ibmcloud": {"chassis_asset_tag": "ibmcloud"},
    }[name]
    asked: list[str] = []

    def ask(self: Service, *args: object, **kwargs: object) -> None:
        asked.append(self._name)
        raise Unavailable("not here")

    monkeypatch.setattr(Service, "ask", ask)
    with pytest.raises(CaaError):
        provision.provision(sources(smbios(tmp_path, **strings)), Rules(root=tmp_path, fetch_seconds=0.6))
    assert set(asked) == {name}
