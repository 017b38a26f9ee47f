"""The disk with the user data, read back by the library that did not write our layout's names."""

import io

import pycdlib
import pytest

from providers.libvirt import seed

USER_DATA = b"#cloud-config\nwrite_files:\n" + bytes(range(256)) * 300


def read(image: bytes, **name: str) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    out = io.BytesIO()
    iso.get_file_from_iso_fp(out, **name)
    iso.close()
    return out.getvalue()


def test_what_is_on_it() -> None:
    image = seed.image("podvm-web-0a1b2c3d", "some-uuid", user_data=USER_DATA)
    for kind in ("rr_path", "joliet_path"):
        assert read(image, **{kind: "/user-data"}) == USER_DATA
        assert read(image, **{kind: "/vendor-data"}) == b""


def test_defect_no_instance_id_in_meta_data() -> None:
    """Without one, cloud-init takes a second VM from the same image for the first one (providers.md 5.2)."""
    image = seed.image("podvm-web-0a1b2c3d", "some-uuid", user_data=USER_DATA)
    assert read(image, rr_path="/meta-data") == b"instance-id: some-uuid\nlocal-hostname: podvm-web-0a1b2c3d\n"


def test_the_label() -> None:
    image = seed.image("x", "y", user_data=b"")
    assert image[16 * 2048 + 40 : 16 * 2048 + 72].decode().strip() == "cidata"
    assert len(image) >= 256 << 10, "busybox's findfs needs more than 68 KiB"


def test_what_is_too_large() -> None:
    with pytest.raises(ValueError, match="64 MiB"):
        seed.image("x", "y", user_data=bytes((64 << 20) + 1))
