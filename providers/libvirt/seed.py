"""The disk with the user data: an ISO 9660 image labelled `cidata`, as cloud-init's NoCloud describes it; pure."""

import io

import pycdlib

_LEAST = 256 << 10  # bytes: busybox does not see the label of a disk that is smaller than what it reads ahead, 68 KiB
_FILES_LIMIT = 64 << 20  # bytes; far above any user data that the node would send


def image(name: str, instance: str, *, user_data: bytes) -> bytes:
    """The image for the pod VM called `name`: user-data, meta-data with instance-id, and an empty vendor-data.

    `instance` is the instance id. The Rock Ridge and Joliet names are the ones that a guest sees.
    """
    if len(user_data) > _FILES_LIMIT:
        raise ValueError("the user data is larger than 64 MiB")
    meta_data = f"instance-id: {instance}\nlocal-hostname: {name}\n".encode()
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    try:
        for file, content in (("user-data", user_data), ("meta-data", meta_data), ("vendor-data", b"")):
            path = f"/{file.upper().replace('-', '_')}.;1"
            iso.add_fp(io.BytesIO(content), len(content), iso_path=path, rr_name=file, joliet_path=f"/{file}")
        out = io.BytesIO()
        iso.write_fp(out)
        return out.getvalue().ljust(_LEAST, b"\0")
    finally:
        iso.close()
