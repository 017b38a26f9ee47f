"""Memory and descriptors over pods that come and go and over a chain of relays: `tests.bench --soak` in short."""

from dataclasses import replace
from pathlib import Path
from typing import Any

OK = (0, "")
# Cancelled timers of dials stay for some seconds, up to 0.6 MiB at this rate; `python -m tests.bench --soak` shows that
# it levels off. A leak of 1 KiB a pod would be 1.5 MiB.
WARM_UP, VISITS, CHAIN = 500, 2000, 20
SLACK_KIB = 1000


def descriptors(process: Any) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def test_pods_that_come_and_go_leave_nothing(relay: Any, guest: Any, shim: Any, until: Any) -> None:
    processes = (relay.process, guest.process)

    def visit(number: int) -> None:
        opening = replace(guest.opening, sandbox=f"pod{number}")
        assert relay.ask("Open", opening.payload()) == (OK, b"")
        one = shim(relay.agent_socket(f"pod{number}"))
        assert one.call("Echo", b"x" * 2000) == (OK, b"x" * 2000)
        one.close()
        assert relay.close(f"pod{number}") == OK

    for number in range(WARM_UP):
        visit(number)
    until(lambda: relay.links() == [], "the last pod to go")
    early = [(descriptors(one), one.status("VmRSS")) for one in processes]
    for number in range(WARM_UP, VISITS):
        visit(number)
    for process, (fds, rss) in zip(processes, early, strict=True):
        until(lambda process=process, fds=fds: descriptors(process) <= fds, "the descriptors to be closed")  # type: ignore[misc]
        assert process.status("VmRSS") <= rss + SLACK_KIB
    assert not list(relay.pods.iterdir())


def test_a_chain_of_relays_does_not_grow(start_relay: Any, guest: Any, shim: Any) -> None:
    relay = start_relay()
    shims = []
    for number in range(4):
        assert relay.ask("Open", replace(guest.opening, sandbox=f"pod{number}").payload()) == (OK, b"")
        shims.append(shim(relay.agent_socket(f"pod{number}")))
    seen = []
    for _ in range(CHAIN):
        relay, old = start_relay(), relay
        assert old.process.child.wait(10) == 0
        for one in shims:
            assert one.call("Echo", b"x") == (OK, b"x")
        seen.append((descriptors(relay.process), relay.process.status("VmRSS"), descriptors(guest.process)))
    early, late = seen[4], seen[-1]
    assert late[0] <= early[0]
    assert late[1] <= early[1] + SLACK_KIB
    assert late[2] <= early[2]
