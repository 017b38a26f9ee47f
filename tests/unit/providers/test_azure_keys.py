"""The key that nobody has, computed again; and what a key file has to be (reference/providers.md 2)."""

import base64
import hashlib
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from caa.errors import Misconfigured
from providers.azure import keys

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def test_nobodys_key_is_a_hash_and_a_point_of_the_curve() -> None:
    point = hashlib.sha256(keys.NOBODY_SEED).digest()
    fields = b"".join(struct.pack(">I", len(one)) + one for one in (b"ssh-ed25519", point))
    assert f"ssh-ed25519 {base64.b64encode(fields).decode()}" == keys.NOBODY
    y = int.from_bytes(point, "little") & 2**255 - 1
    assert y < P
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    assert pow(x_squared, (P - 1) // 2, P) == 1, "x exists"
    assert isinstance(load_ssh_public_key(keys.NOBODY.encode()), Ed25519PublicKey)


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "key.pub"
    file.write_text(text)
    file.chmod(mode)
    return file


def public() -> str:
    made = Ed25519PrivateKey.generate().public_key()
    return made.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize("comment", ["", " me@home\n"])
def test_an_operators_key_is_taken(tmp_path: Path, comment: str) -> None:
    key = public()
    assert keys.read(written(tmp_path, key + comment)) == (key + comment).strip()


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("ssh-ed25519 AAAA", 0o644, "has mode 0644"),
        ("junk", 0o600, "not one public key"),
        ("ssh-ed25519 AAAA\nssh-ed25519 BBBB", 0o600, "not one public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", 0o600, "not one public key"),
    ],
)
def test_what_is_no_key_file(tmp_path: Path, text: str, mode: int, words: str) -> None:
    with pytest.raises(Misconfigured, match=words) as caught:
        keys.read(written(tmp_path, text, mode))
    assert "PRIVATE" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"cannot be read \(FileNotFoundError\)"):
        keys.read(tmp_path / "none")
