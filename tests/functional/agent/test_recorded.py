"""The stand-in agent answers as the real one was recorded; what may differ is said in `caa.testing.likeness`."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from caa.testing import likeness

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "/bin/busybox")]

Play = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("name", ["normal", "normal-rs", "exit3", "exec-io", "exec-io-rs", "attach-stdin"])
async def test_a_life_as_recorded(play: Play, name: str) -> None:
    likeness.assert_as_recorded(await play(name))


async def test_copied_files_as_recorded(play: Play) -> None:
    played = await play("copyfile")
    likeness.assert_calls(played)
    assert any(b"small" in output for output in played.output.values())


@pytest.mark.parametrize("name", ["command-not-found", "policy-deny-exec", "pull-error"])
async def test_an_error_as_recorded(play: Play, name: str) -> None:
    played = await play(name)
    if name == "pull-error":
        # "(lab)" is the lab's reason, ours is that nothing of this name is here.
        (pull,) = [one for one in played.outcomes if one.recorded and one.recorded.text.startswith("[CDH]")]
        assert pull.ours.text.split(" (")[0] == pull.recorded.text.split(" (")[0]
        played.outcomes.remove(pull)
    likeness.assert_as_recorded(played)


@pytest.mark.parametrize("name", ["agent-replay", "agent-orphan-reads", "agent-orphans"])
async def test_dropped_and_repeated_calls_as_recorded(play: Play, name: str) -> None:
    likeness.assert_as_recorded(await play(name, scale=0.2))
