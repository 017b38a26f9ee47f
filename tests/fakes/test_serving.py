"""A fake cloud as a process of its own, and what its desk says of it."""

import json
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from subprocess import PIPE
from typing import Any

import pytest

from caa.errors import Unavailable
from caa.testing.demo.fake import Fake
from tests.fakes.ledger import Ledger, Resource
from tests.fakes.machines import Host
from tests.fakes.serving import Desk, Offer
from tests.fakes.wire import Wire


@pytest.fixture(params=["aws", "azure", "gcp"])
def settings(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What it prints for a shell; at the end it is told to go and says what is alive."""
    command = [sys.executable, "-m", f"tests.fakes.{request.param}"]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as cloud:
        assert cloud.stdout is not None
        found = {"expected": request.param}
        while "FAKE_CLOUD_URL" not in found:
            export, assignment = shlex.split(cloud.stdout.readline())
            assert export == "export"
            name, _, value = assignment.partition("=")
            found[name] = value
        yield found
        cloud.send_signal(signal.SIGTERM)
        _, err = cloud.communicate(timeout=20)
    assert (cloud.returncode, err.strip()) == (0, "0 alive, 0.0000 per hour")


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)


def test_it_says_how_to_reach_it_and_that_nothing_is_alive(settings: dict[str, str]) -> None:
    assert settings["CLOUD_PROVIDER"] == settings["expected"]
    desk = settings["FAKE_CLOUD_URL"]
    assert (asked(f"{desk}/ledger"), asked(f"{desk}/instances")) == ([], {})


def test_the_demo_hears_of_what_is_left_and_of_ids() -> None:
    ledger = Ledger()
    ledger.add(Resource(kind="volume", id="vol-1", cost=0.1, tags={"Name": "podvm-a"}))

    def attach(host: Host) -> None:
        pytest.fail("nobody asked for machines")

    offer = Offer(settings={}, ledger=lambda: ledger, instances=lambda: {"podvm-a": "zone/i-1"}, attach=attach)
    with Wire(Desk(offer)) as desk:
        fake = Fake({"FAKE_CLOUD_URL": desk.url})
        assert fake.left(seconds=0.0) == ["volume vol-1"]
        assert fake.identity("podvm-a") == "zone/i-1"
        with pytest.raises(Unavailable, match="no instance podvm-b, but"):
            fake.identity("podvm-b")
        ledger.remove("volume", "vol-1")
        assert fake.left() == []
    with pytest.raises(Unavailable, match="does not answer"):
        fake.left()
