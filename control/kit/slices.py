"""Long work in steps: others have the loop in between.

Containers count, too. One of 50,000 entries that is made, copied or freed in one go takes 5 to 30
ms: most of it is waiting for memory.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from control.kit.clock import Clock
from control.kit.memory import examine_young

# Others are served after this much work, however much there is of it.
SLICE_S: Final = 0.002
PORTION: Final = 128  # entries of a container, some 30 us
SORTED: Final = 2048  # names that are sorted at once: 1 ms

T = TypeVar("T")


def portions(found: Iterable[T], size: int = PORTION) -> Iterator[list[T]]:
    """All of it, in order, so many at a time. What it comes from must not change meanwhile."""
    rest = iter(found)
    while part := list(islice(rest, size)):
        yield part


def emptied(found: dict[Any, Any] | set[Any] | list[Any]) -> Iterator[None]:
    """Take everything out, in steps: what nobody else has is freed with its own portion."""
    take: Callable[[], object] = found.popitem if isinstance(found, dict) else found.pop
    while found:
        for _ in range(min(PORTION, len(found))):
            take()
        yield


async def in_slices(steps: Iterable[object], clock: Clock) -> None:
    """Take all steps; others are served in between."""
    began_s = clock.monotonic_s()
    for _ in steps:
        if clock.monotonic_s() - began_s >= SLICE_S:
            examine_young()
            await asyncio.sleep(0)
            began_s = clock.monotonic_s()


def done(steps: Generator[object, None, T]) -> T:
    """Take all steps at once; their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


async def made_in_slices(steps: Generator[object, None, T], clock: Clock) -> T:
    """As `in_slices`; the result of the steps."""
    found: list[T] = []

    def whole() -> Iterator[object]:
        found.append((yield from steps))

    await in_slices(whole(), clock)
    return found[0]


def sorted_steps(found: Iterable[str]) -> Generator[None, None, Iterator[str]]:
    """All names in order, one by one: 50,000 that are sorted in one go take 30 ms."""
    sorted_parts: list[list[str]] = []
    for part in portions(found, SORTED):
        sorted_parts.append(sorted(part))
        yield
    return heapq.merge(*sorted_parts)
