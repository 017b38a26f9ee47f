"""Calls side by side that end together: none goes on when another one failed. Nothing else lives here."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each returns, in their order; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in works]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [one.result() for one in tasks]


async def first_of(first: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, object]) -> T:
    """What `first` returns when all are done; the first error ends the others and is raised as it is."""
    return cast(T, (await all_of([first, *others]))[0])  # the others return anything
