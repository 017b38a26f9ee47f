"""The hub's messages, compared with its protobuf definition."""

import pytest

from caa.datapath import edits
from caa.errors import InvalidInput, Unavailable
from caa.wire.proto import cdh as messages
from podvm import cdh


def test_the_request_is_what_protobuf_reads() -> None:
    options = {"devicePath": "/dev/vdb", "key": "kbs:///a/b/ü"}
    found = messages.SecureMountRequest.FromString(cdh._request(options, "/run/cloud-volumes/vol"))
    assert found.volume_type == "block-device"
    assert dict(found.options) == options
    assert list(found.flags) == []
    assert found.mount_point == "/run/cloud-volumes/vol"


def test_success_has_an_empty_status_or_none() -> None:
    cdh._check(b"", "/m")
    cdh._check(edits.bytes_field(1, b"") + edits.bytes_field(2, b""), "/m")


def test_a_refusal_keeps_its_reason() -> None:
    status = edits.varint_field(1, 13) + edits.bytes_field(2, b"get key failed")
    with pytest.raises(InvalidInput, match=r"does not mount /m: get key failed \(code 13\)"):
        cdh._check(edits.bytes_field(1, status), "/m")


def test_what_is_no_message() -> None:
    with pytest.raises(Unavailable, match="not a protobuf message"):
        cdh._check(b"\xff\xff", "/m")
