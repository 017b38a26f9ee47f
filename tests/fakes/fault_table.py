"""What a cloud has to say of itself for the table of faults (tests/contract/test_faults.py): its calls, its places."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caa.provider.capacity import Place
from tests.fakes.wire import Noted


@dataclass(frozen=True, kw_only=True)
class FaultTable:
    """One cloud's part. `W` below is its own `World`.

    `making` and `ending` are the calls of a whole life with all that `everything` (settings) brings; `staying` those
    whose fault, when it stays, is told in golden messages; `make` is the call that makes the pod VM, `kind` what the
    ledger calls one. `once` are calls that are not sent again without an answer; `unread` those of whose answer
    nothing is needed; `proof` those by whose answer the check sees that there is a cloud at all; `hurried` are the
    waits of the driver for tests that run into them.
    """

    cloud: str
    world: Callable[[Path], AbstractAsyncContextManager[Any]]
    making: tuple[str, ...]
    ending: tuple[str, ...]
    staying: tuple[str, ...]
    make: str
    kind: str = "instance"
    everything: Mapping[str, str] = field(default_factory=dict)
    once: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    proof: frozenset[str]
    hurried: Mapping[str, float] = field(default_factory=dict)
    prepare: Callable[[Any], None]  # (W): the cloud as a whole life needs it
    volume: Callable[[Any], str]  # (W): a data volume of a pod
    slow: Callable[[Any, float], None]  # (W, seconds): how long a new pod VM is not ready
    began: Callable[[Any], threading.Event]  # (W): set when the first pod VM is being made
    places: Callable[[Any], "Places"]  # (W)
    missing: tuple[str, ...]  # settings without which there is no launch
    unset: Mapping[str, str] = field(default_factory=dict)  # what else to set when one of them is missing


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a cloud is asked to go on when there is no room.

    With `settings` a pod VM may be of any of `types`, in any of `zones`, both in their order; a refusal begins with
    `code`. `tried` reads the place in a request for a pod VM.
    """

    settings: Mapping[str, str]
    types: Sequence[str]
    zones: Sequence[str]
    code: str
    tried: Callable[[Noted], Place]
