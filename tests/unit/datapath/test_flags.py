"""Flags in Go's way."""

import pytest

from caa.datapath.flags import FlagError, Flags

DEFAULTS = {"listen": "0.0.0.0:15150", "disable-tls": False, "seconds": 1.5}


def test_every_form_is_taken() -> None:
    flags = Flags(DEFAULTS, ["-listen", "[::]:1", "--disable-tls", "--seconds=2"])
    assert flags.text("listen") == "[::]:1"
    assert flags.given("disable-tls")
    assert flags.number("seconds") == 2.0
    assert not Flags(DEFAULTS, ["-disable-tls=false"]).given("disable-tls")
    assert Flags(DEFAULTS, []).text("listen") == "0.0.0.0:15150"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["-nope"], "unknown flag '-nope'"),
        (["listen", "x"], "unknown flag 'listen'"),
        (["-listen"], "-listen needs a value"),
        (["-seconds", "soon"], "a number is needed"),
        (["-seconds", "-1"], "above 0"),
        (["-seconds", "nan"], "above 0"),
        (["-disable-tls=perhaps"], "true or false"),
    ],
)
def test_a_wrong_flag_says_what_is_wrong(args: list[str], told: str) -> None:
    with pytest.raises(FlagError, match=told):
        Flags(DEFAULTS, args)
