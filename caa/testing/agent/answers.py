"""The agent's error answers, with the texts the real one was recorded with."""

from caa.errors import Code
from caa.wire.status import RpcError


def error(code: int, message: str) -> RpcError:
    """An error answer; `message` is what travels."""
    return RpcError(Code(code), message)


def no_such_container(container: str) -> RpcError:
    """Signal, stats, pause, ... of a container that is not there."""
    return error(13, f"Invalid container id {container}")


def no_such_process() -> RpcError:
    """Any call on a process that was reaped or never was."""
    return error(5, "InvalidExecId")
