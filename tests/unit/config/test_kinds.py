"""Texts to values and back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.config import kinds
from caa.config.tls import CIPHER_SUITES, SUITES, TLS13_SUITES, TLS_VERSION, only_tls13, openssl_ciphers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("150ms", 0.15),
        ("0", 0.0),
        ("0s", 0.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        ("3ns", 3e-9),
        ("1m0.5s", 60.5),
    ],
)
def test_durations_as_go_writes_them(text: str, seconds: float) -> None:
    assert kinds.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "m", "5 m", "-5m", "+5m", "5min", "1d", "\u0665m", "5m ", "9999999h", "1e3s", "." + "9" * 80 + "s"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        kinds.parse_duration(text)


@given(st.integers(min_value=0, max_value=10**15))
def test_a_shown_duration_reads_back(microseconds: int) -> None:
    seconds = microseconds / 1e6
    assert kinds.parse_duration(kinds.show_duration(seconds)) == pytest.approx(seconds, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("1", True), ("False", False), ("no", False), ("0", False)]
)
def test_truth_values(text: str, value: bool) -> None:
    assert kinds.BOOL.parse(text) is value


@pytest.mark.parametrize("text", ["", "on", "t", "2", "ja"])
def test_what_is_no_truth_value(text: str) -> None:
    with pytest.raises(ValueError):
        kinds.BOOL.parse(text)


@pytest.mark.parametrize("text", ["", "1.5", "30GB", "0x10", "1_000", "²", "65536", "0", "-1", "9" * 5000])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError):
        kinds.integer(1, 65535).parse(text)


def test_integers_and_their_bounds() -> None:
    assert kinds.integer(1, 65535).parse("15150") == 15150
    assert kinds.integer().parse("-3") == -3
    assert kinds.integer(1, 65535).allowed == "a whole number from 1 to 65535"


@pytest.mark.parametrize("text", ["nan", "inf", "x", "", "2"])
def test_what_is_no_number_in_the_range(text: str) -> None:
    with pytest.raises(ValueError):
        kinds.number(0.0, 1.0).parse(text)
    assert kinds.number(0.0, 1.0).parse("0.5") == 0.5


def test_lists_drop_blanks_and_empty_items() -> None:
    assert kinds.LIST.parse(" a, b ,,c,") == ("a", "b", "c")
    assert kinds.LIST.show(("a", "b")) == "a,b"
    assert kinds.LIST.parse("") == ()


def test_amounts() -> None:
    assert dict(kinds.AMOUNTS.parse("m6a.large=0.0864, x=2")) == {"m6a.large": 0.0864, "x": 2.0}
    assert kinds.AMOUNTS.show({"a": 0.5}) == "a=0.5"


@pytest.mark.parametrize("text", ["a", "a=", "a=x", "a=-1", "a=inf", "a=nan", "a=1,a=2"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError):
        kinds.AMOUNTS.parse(text)


def test_tags_keep_equals_and_blanks_in_values() -> None:
    assert dict(kinds.TAGS.parse("a=1 b=2, c = d=e ,f=")) == {"a": "1 b=2", "c": "d=e", "f": ""}
    assert kinds.TAGS.show({"a": "1", "b": "2"}) == "a=1,b=2"


@pytest.mark.parametrize("text", ["a", "=1", "a=1,b", "a=1,a=2"])
def test_what_are_no_tags(text: str) -> None:
    with pytest.raises(ValueError):
        kinds.TAGS.parse(text)


@pytest.mark.parametrize("text", ["relative/path", "~/x", "/a\0b"])
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError):
        kinds.OPTIONAL_PATH.parse(text)


def test_paths() -> None:
    assert kinds.PATH.parse("/run/x") == Path("/run/x")
    assert kinds.OPTIONAL_PATH.parse("") is None
    assert kinds.OPTIONAL_PATH.show(None) == ""
    with pytest.raises(ValueError):
        kinds.PATH.parse("")


def test_networks_of_both_families() -> None:
    networks = kinds.NETWORKS.parse("10.244.1.5/16, fd00::/56")
    assert kinds.NETWORKS.show(networks) == "10.244.0.0/16,fd00::/56"
    with pytest.raises(ValueError):
        kinds.NETWORKS.parse("10.0.0.0/33")


def test_choices_come_back_as_they_are_written() -> None:
    kind = kinds.choice("vxlan", "WireGuard")
    assert kind.parse("wireguard") == "WireGuard"
    assert kind.allowed == "vxlan or WireGuard"
    assert kinds.choice("a", empty=True).parse("") == ""
    with pytest.raises(ValueError):
        kind.parse("")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("", ""),
        ("VersionTLS12", "VersionTLS12"),
        ("versiontls13", "VersionTLS13"),
        ("1.2", "VersionTLS12"),
        ("1.3", "VersionTLS13"),
    ],
)
def test_tls_versions(text: str, version: str) -> None:
    assert TLS_VERSION.parse(text) == version


@pytest.mark.parametrize("text", ["1.1", "VersionTLS10", "TLS", "3"])
def test_old_tls_versions_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        TLS_VERSION.parse(text)


def test_cipher_suites_by_iana_name() -> None:
    text = "TLS_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"
    suites = CIPHER_SUITES.parse(text)
    assert openssl_ciphers(suites) == "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305"
    assert not only_tls13(suites)
    assert only_tls13(TLS13_SUITES)
    assert not only_tls13(())


@pytest.mark.parametrize(
    "name", ["TLS_RSA_WITH_RC4_128_SHA", "ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"]
)
def test_insecure_and_foreign_suite_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        CIPHER_SUITES.parse(name)


def test_openssl_knows_every_suite_by_our_name() -> None:
    ssl = pytest.importorskip("ssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in SUITES.values():
        context.set_ciphers(f"{name}:@SECLEVEL=0")
        assert name in {cipher["name"] for cipher in context.get_ciphers()}
