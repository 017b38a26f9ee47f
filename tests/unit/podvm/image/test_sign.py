"""Keys for Secure Boot: both or none, PEM, without a pass phrase; where they go and what is told to whom."""

from pathlib import Path
from typing import Any

import pytest

from caa.errors import ConfigError
from podvm.image import recipe, sign
from podvm.image.recipe import Wish, command
from podvm.image.sign import Signer

KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\n"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "certificate").write_text(CERTIFICATE)
    return Signer(key=tmp_path / "key", certificate=tmp_path / "certificate")


def test_both_or_none(signer: Signer) -> None:
    assert sign.signer(None, None) is None
    assert sign.signer(signer.key, signer.certificate) == signer
    for one in ((signer.key, None), (None, signer.certificate)):
        with pytest.raises(ConfigError, match="needs both: --secure-boot-key and --secure-boot-certificate"):
            sign.signer(*one)


def test_the_copies_are_for_root_alone(signer: Signer, tmp_path: Path) -> None:
    signer.copy(tmp_path / "keys")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    files = {file.name: file for file in (tmp_path / "keys").iterdir()}
    assert {name: file.stat().st_mode & 0o777 for name, file in files.items()} == dict.fromkeys(files, 0o600)
    told = " ".join((*sign.SIGNING, *sign.UKIFY))
    assert all(f"/out/keys/{name}" in told for name in files)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("key", CERTIFICATE, "holds no private key in PEM"),
        ("key", KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"), "has a pass phrase: give a key without one"),
        ("certificate", "DER", "holds no certificate in PEM"),
    ],
)
def test_what_cannot_sign_is_refused(signer: Signer, tmp_path: Path, file: str, text: str, reason: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=reason):
        signer.copy(tmp_path / "keys")
    assert not (tmp_path / "keys").exists()  # no key beside a certificate that is none


def test_a_wrong_key_is_told_before_anything_is_made(signer: Signer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(recipe.workshop, "opened", lambda *_, **__: pytest.fail("the build began"))
    signer.certificate.write_text("DER")
    with pytest.raises(ConfigError, match="holds no certificate"):
        recipe.build(Wish(signer=signer), tmp_path / "cache", to=tmp_path)
    assert not list((tmp_path / "cache").rglob("*.key"))


def test_a_missing_key_is_named(signer: Signer, tmp_path: Path) -> None:
    signer.key.unlink()
    with pytest.raises(ConfigError, match="key cannot be read: No such file"):
        signer.copy(tmp_path / "keys")


def test_mkosi_signs_when_there_is_a_key_and_enrols_none(signer: Signer) -> None:
    assert not [word for word in command(Wish()) if "secure-boot" in word]
    told = command(Wish(signer=signer))
    assert "--secure-boot=yes" in told
    assert "--secure-boot-auto-enroll=no" in told


def test_nothing_is_signed_where_no_firmware_asks(signer: Signer) -> None:
    with pytest.raises(ConfigError, match="s390x has no UEFI"):
        Wish(signer=signer, architecture="s390x")
