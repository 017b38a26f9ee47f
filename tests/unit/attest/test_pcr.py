"""PCR predictions on PE files made here; real UKIs are compared with a TPM in tests/functional/image."""

import hashlib
import struct

import pytest

from caa.attest import pcr, pe
from caa.errors import InvalidInput
from caa.userdata import initdata


def executable(sections: dict[str, bytes], certificate: bytes = b"") -> bytes:
    """A PE32+ file of these sections, each padded to 512 bytes, and a certificate table behind them."""
    count = len(sections)
    optional = bytearray(240)
    struct.pack_into("<H", optional, 0, 0x20B)
    headers = 1024
    struct.pack_into("<I", optional, 60, headers)
    struct.pack_into("<I", optional, 64, 0xDEADBEEF)  # checksum
    struct.pack_into("<I", optional, 108, 16)
    table, body, offset = b"", b"", headers
    for name, content in sections.items():
        stored = -(-len(content) // 512) * 512
        table += struct.pack("<8sIIII16x", name.encode(), len(content), 0x1000, stored, offset)
        body += content.ljust(stored, b"\0")
        offset += stored
    struct.pack_into("<II", optional, 112 + 32, offset if certificate else 0, len(certificate))
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = b"PE\0\0" + struct.pack("<HH12xHH", 0x8664, count, len(optional), 0)
    return (head + coff + bytes(optional) + table).ljust(headers, b"\0") + body + certificate


KERNEL = executable({".text": b"kernel"})
UKI = executable({".text": b"stub", ".cmdline": b"quiet", ".linux": KERNEL, ".initrd": b"i", ".osrel": b"ID=podvm\n"})


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_pcr_8_of_a_pod_without_initdata_is_the_constant_that_verifiers_know():
    """Both constants are the reference's (`reference/podvm.md` 2.1)."""
    digest = initdata.parse(initdata.DUMMY).digest
    assert digest == "adb48cc14fea9403d3d51f3b5f5068fd4d80445a14e94f1b3d5dbabaad66478d"
    assert pcr.initdata(digest).hex() == "4b58b30becd30d16f7f60d56b32661d921ae0d3310c6a89f5d552f9bfee921a9"


def test_a_longer_digest_counts_with_its_first_32_bytes():
    assert pcr.initdata("ab" * 48) == pcr.initdata("ab" * 32)


@pytest.mark.parametrize("digest", ["", "ab" * 31, "no hex" * 20])
def test_what_is_no_digest_is_refused(digest):
    with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
        pcr.initdata(digest)


def test_pcr_11_takes_names_and_contents_in_the_stub_s_order():
    expected = bytes(32)
    for name, content in ((b".linux", KERNEL), (b".osrel", b"ID=podvm\n"), (b".cmdline", b"quiet"), (b".initrd", b"i")):
        expected = sha(sha_extend(expected, name + b"\0") + sha(content))
    assert pcr.unified_kernel(UKI) == expected


def sha_extend(value: bytes, data: bytes) -> bytes:
    return sha(value + sha(data))


def test_pcr_4_takes_action_separator_uki_and_kernel():
    expected = bytes(32)
    for digest in (
        sha(b"Calling EFI Application from Boot Option"),
        sha(bytes(4)),
        pe.authenticode(pe.parse(UKI)),
        pe.authenticode(pe.parse(KERNEL)),
    ):
        expected = sha(expected + digest)
    assert pcr.boot(UKI) == expected


def test_under_secure_boot_the_stub_checks_the_kernel_itself_and_firmware_measures_the_uki_alone():
    expected = bytes(32)
    events = (sha(b"Calling EFI Application from Boot Option"), sha(bytes(4)), pe.authenticode(pe.parse(UKI)))
    for digest in events:
        expected = sha(expected + digest)
    assert pcr.boot(UKI, secure_boot=True) == expected


def test_a_signature_is_seen():
    assert not pe.parse(UKI).is_signed
    assert pe.parse(executable({".text": b"kernel"}, certificate=b"signature")).is_signed


def test_neither_checksum_nor_certificate_changes_what_firmware_measures():
    plain = executable({".text": b"kernel"})
    signed = bytearray(executable({".text": b"kernel"}, certificate=b"signature"))
    signed[0x40 + 24 + 64] ^= 0xFF
    assert pe.authenticode(pe.parse(bytes(signed))) == pe.authenticode(pe.parse(plain))
    assert pe.authenticode(pe.parse(executable({".text": b"other"}))) != pe.authenticode(pe.parse(plain))


@pytest.mark.parametrize("data", [b"", b"MZ", b"MZ" + bytes(100), UKI[:200]])
def test_what_is_no_pe_file_is_refused(data):
    with pytest.raises(InvalidInput, match="PE file"):
        pe.parse(data)


def test_a_kernel_alone_is_no_uki():
    with pytest.raises(InvalidInput, match=r"no section \.linux"):
        pcr.boot(KERNEL)
