"""Errors and statuses: there and back."""

import pytest
from google.protobuf import any_pb2

from caa import errors
from caa.errors import Code
from caa.wire.proto.ttrpc import Any, Status
from caa.wire.status import RpcError, error_of, status_of


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.NotFound("no sandbox x"), Code.NOT_FOUND, "no sandbox x"),
        (
            errors.StepFailed("launch: no room", code=Code.RESOURCE_EXHAUSTED),
            Code.RESOURCE_EXHAUSTED,
            "launch: no room",
        ),
        (RpcError(Code.PERMISSION_DENIED, '"blocked by policy: "'), Code.PERMISSION_DENIED, '"blocked by policy: "'),
        (RpcError(Code.INTERNAL, ""), Code.INTERNAL, ""),
        (KeyError("x"), Code.INTERNAL, "KeyError: 'x'"),
        (ZeroDivisionError(), Code.INTERNAL, "ZeroDivisionError"),
        (RpcError(Code.OK, "not an error"), Code.UNKNOWN, "not an error"),
        (errors.NotFound("a\udcffb"), Code.NOT_FOUND, "a?b"),
    ],
)
def test_status_of(error: Exception, code: Code, message: str) -> None:
    status = status_of(error)
    assert (status.code, status.message) == (code, message)


@pytest.mark.parametrize("code", [code for code in Code if code])
def test_there_and_back(code: Code) -> None:
    sent = RpcError(code, "why", details=[Any(type_url="t/x", value=b"1"), Any(type_url="t/y")])
    got = error_of(Status.FromString(status_of(sent).SerializeToString()))
    assert got is not None
    assert (got.code, got.message, got.details) == (sent.code, sent.message, sent.details)
    assert str(got) == "why"


def test_ok_is_no_error() -> None:
    assert error_of(Status()) is None
    assert error_of(Status(code=0, message="fine")) is None


@pytest.mark.parametrize("code", [-1, 17, 2**31 - 1])
def test_a_code_nobody_knows(code: int) -> None:
    error = error_of(Status(code=code, message="?"))
    assert error is not None
    assert error.code is Code.UNKNOWN


def test_details_of_another_pool() -> None:
    assert RpcError(Code.ABORTED, "", details=[any_pb2.Any(type_url="u", value=b"v")]).details == (
        Any(type_url="u", value=b"v"),
    )


def test_what_may_be_tried_again() -> None:
    assert {code for code in Code if RpcError(code, "").retryable} == {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}
