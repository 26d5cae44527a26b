"""Work that waits for one task, an entry for each key; the task has others go first."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

Name = TypeVar("Name")
Work = TypeVar("Work")


class WorkQueue(Generic[Name, Work]):
    """Its bound is that of the keys, which are the caller's."""

    def __init__(self) -> None:
        self._waiting: dict[Name, Work] = {}
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, name: Name, work: Work) -> None:
        """New work under a key that waits takes the place of the older."""
        self._waiting[name] = work
        self._news.set()

    async def take(self, most: int) -> list[tuple[Name, Work]]:
        """Wait until there is some; the oldest keys, after a turn of everybody else."""
        await asyncio.sleep(0)
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        taken = list(self._waiting)[:most]
        return [(name, self._waiting.pop(name)) for name in taken]
