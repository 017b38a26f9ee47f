"""What a cloud has to say of itself for the test of many pods at once (tests/contract/test_load.py)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.fault_table import FaultTable


@dataclass(frozen=True, kw_only=True)
class LoadTable:
    """One cloud's part; `table` is its part in the table of faults. `W` below is its own `World`.

    `speed` is how much faster than the wall's clock the drivers' runs, `per_second` and `creates` are the drivers'
    settings for calls in their own seconds, `allowed` what the account has in one of the wall's, over any `window` of
    them: a busy machine bunches up what it was sent. `looks` are the calls that pods share: at most `most_looks` a pod.
    """

    table: FaultTable
    speed: float
    per_second: float
    creates: int
    allowed: float
    window: float = 5.0
    looks: Sequence[str]
    most_looks: float = 1.0
    waits: Mapping[str, float] = field(default_factory=dict)
    prepare: Callable[[Any], None]  # (W)
    asked: Callable[[Any], Sequence[str]]  # (W): the pods' names in the order in which the cloud was asked for them
