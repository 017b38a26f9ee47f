"""A console that grows, and the guest's clock as it is found from what it says."""

from pathlib import Path

import pytest

from caa.testing.demo.console import Watch


def test_the_earliest_that_any_line_allows_for(tmp_path: Path) -> None:
    log, clock = tmp_path / "console", [10.0]
    watch = Watch(log, lambda: clock[0])
    watch.look()
    assert watch.clock_began is None
    with log.open("wb", buffering=0) as console:
        console.write(b"SeaBIOS\r\n[    1.500000] pod")
        watch.look()
        assert watch.clock_began is None
        clock[0] = 12.0
        console.write(b"vm: boot\r\n[    1.600000] podvm: on\r\n")
        watch.look()
        assert watch.clock_began == pytest.approx(10.4)
        clock[0] = 14.0
        console.write(b"[    3.700000] podvm: seen at once\n")
        watch.look()
        assert watch.clock_began == pytest.approx(10.3)
        clock[0] = 20.0
        console.write(b"[    3.800000] podvm: seen late\n")
    watch.look()
    assert watch.clock_began == pytest.approx(10.3)
    assert watch.text.splitlines()[:2] == ["SeaBIOS", "[    1.500000] podvm: boot"]


def test_a_console_that_goes(tmp_path: Path) -> None:
    log = tmp_path / "console"
    log.write_text("[    1.000000] podvm: boot\n")
    watch = Watch(log, lambda: 3.0)
    watch.look()
    log.unlink()
    watch.look()
    assert (watch.clock_began, watch.text) == (2.0, "[    1.000000] podvm: boot\n")
