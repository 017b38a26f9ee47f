"""Blocking calls run in few threads, and again after a close."""

import threading

import pytest

from caa.provider.threads import Threads


async def test_calls_run_elsewhere_and_the_pool_opens_again() -> None:
    threads = Threads(2, "cloud")
    assert await threads.run(lambda: threading.current_thread().name) == "cloud_0"
    threads.close()
    threads.close()
    assert (await threads.run(threading.current_thread)) is not threading.main_thread()
    threads.close()


async def test_what_the_call_raises_is_raised() -> None:
    threads = Threads(1, "cloud")

    def broken() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await threads.run(broken)
    threads.close()
