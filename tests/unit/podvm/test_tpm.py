"""PCR 8: the commands' bytes, the prediction, and what a TPM may answer."""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from caa.errors import StateError, Unavailable
from caa.userdata.initdata import DUMMY_DIGEST
from podvm import measure, tpm
from podvm.clock import Clock
from podvm.measure import Presence, Tpm

# `reference/podvm.md` 2.1: what the dummy initdata leaves in PCR 8.
DUMMY_PCR = "4b58b30becd30d16f7f60d56b32661d921ae0d3310c6a89f5d552f9bfee921a9"
EMPTY = bytes(32)


class Registers:
    """A TPM of one register that takes the two commands apart."""

    def __init__(self, held: bytes = EMPTY, *, codes: tuple[int, ...] = ()) -> None:
        self.held = held
        self.codes = list(codes)
        self.extends = 0

    def ask(self, command: bytes) -> bytes:
        tag, size, code = struct.unpack_from(">HII", command)
        assert size == len(command)
        if self.codes:
            return struct.pack(">HII", 0x8001, 10, self.codes.pop(0))
        if code == 0x17E:
            assert command[10:] == bytes.fromhex("00000001000b03000100")
            body = struct.pack(">I", 7) + command[10:] + struct.pack(">IH", 1, 32) + self.held
            return struct.pack(">HII", 0x8001, 10 + len(body), 0) + body
        assert (tag, code, command[10:14]) == (0x8002, 0x182, struct.pack(">I", 8))
        assert command[14:33] == bytes.fromhex("00000009 40000009 0000 00 0000 00000001 000b")
        self.held = hashlib.sha256(self.held + command[33:]).digest()
        self.extends += 1
        return bytes.fromhex("8002 00000013 00000000 00000000 0000 00 0000")


def test_the_dummys_register_is_the_references() -> None:
    assert tpm.predicted(DUMMY_DIGEST).hex() == DUMMY_PCR


def test_long_digests_are_cut_to_32_bytes() -> None:
    assert tpm.value("ab" * 48) == tpm.value("ab" * 64) == bytes.fromhex("ab" * 32)


def test_once_per_boot() -> None:
    chip = Registers()
    assert tpm.measure(chip.ask, DUMMY_DIGEST).hex() == DUMMY_PCR
    assert tpm.measure(chip.ask, DUMMY_DIGEST).hex() == DUMMY_PCR
    assert chip.extends == 1


def test_somebody_else_has_extended_it() -> None:
    chip = Registers(b"\1" * 32)
    with pytest.raises(StateError, match=r"PCR 8 holds 0101.* already"):
        tpm.measure(chip.ask, DUMMY_DIGEST)
    assert chip.extends == 0


def test_a_busy_tpm_is_asked_again() -> None:
    assert tpm.measure(Registers(codes=(0x922, 0x90A)).ask, DUMMY_DIGEST).hex() == DUMMY_PCR
    with pytest.raises(Unavailable, match="busy"):
        tpm.measure(Registers(codes=(0x922,) * 99).ask, DUMMY_DIGEST)


def test_an_extend_without_effect_is_noticed() -> None:
    chip = Registers()

    def ask(command: bytes) -> bytes:
        answer = chip.ask(command)
        chip.held = EMPTY
        return answer

    with pytest.raises(StateError, match="after the extend"):
        tpm.measure(ask, DUMMY_DIGEST)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "no TPM 2.0 response"),
        (b"\x80\x01" + struct.pack(">II", 99, 0), "no TPM 2.0 response"),
        (struct.pack(">HII", 0x8001, 10, 0x101), "code 0x101 .the TPM is in failure mode"),
        (struct.pack(">HII", 0x8001, 10, 0), "broken"),
        (bytes.fromhex("8001 00000016 00000000 00000001 00000000 00000000"), "no SHA-256 bank"),
        (bytes.fromhex("8001 0000001e 00000000 00000001 ffffffff 00000000 0000000000000000"), "broken"),
    ],
)
def test_other_answers_are_errors(answer: bytes, text: str) -> None:
    with pytest.raises(StateError, match=text):
        tpm.read_pcr(lambda _: answer)


@pytest.fixture
def clock() -> Clock:
    at: Iterator[int] = iter(range(10_000))
    return Clock(now=lambda: float(next(at)), sleep=lambda _: None)


@pytest.mark.parametrize(
    ("presence", "fatal"), [(Presence.OFF, False), (Presence.AUTO, False), (Presence.REQUIRED, True)]
)
def test_a_machine_without_a_tpm(tmp_path: Path, clock: Clock, presence: Presence, fatal: bool) -> None:
    rules = Tpm(presence=presence, device=tmp_path / "tpmrm0")
    if not fatal:
        measure.extend(DUMMY_DIGEST, rules, clock=clock)
        return
    with pytest.raises(StateError, match=r"no TPM at .*tpmrm0 after 20 s, and this image must have one"):
        measure.extend(DUMMY_DIGEST, rules, clock=clock)


@pytest.mark.parametrize("presence", [Presence.AUTO, Presence.REQUIRED])
def test_a_tpm_that_fails_stops_the_boot(tmp_path: Path, clock: Clock, presence: Presence) -> None:
    (tmp_path / "tpmrm0").write_bytes(b"")
    with pytest.raises(StateError, match="the initdata digest cannot be measured: the TPM"):
        measure.extend(DUMMY_DIGEST, Tpm(presence=presence, device=tmp_path / "tpmrm0"), clock=clock)
