"""A wait that is counted in turns of the event loop: no test waits for real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TURNS_MAX = 10_000


async def turns_until(condition: Callable[[], bool], turns_max: int = TURNS_MAX) -> None:
    """Let other tasks run until the condition holds; AssertionError when it never does."""
    for _ in range(turns_max):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"not within {turns_max} turns of the loop")
