"""Turns for requests to the signer: a bounded number at one time, the most urgent first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum


class Priority(IntEnum):
    WAITING = 0  # a connection waits for it
    PREFETCH = 1
    RENEWAL = 2


class PrioritySlots:
    """Semaphore that serves the most urgent waiter first; a waiter may become more urgent."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, str, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def hold(self, key: str, priority: Priority) -> AsyncIterator[None]:
        await self._acquire(key, priority)
        try:
            yield
        finally:
            self._free += 1
            self._wake()

    async def _acquire(self, key: str, priority: Priority) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), key, turn))
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free += 1  # the slot arrived together with the cancellation
                self._wake()
            raise

    def promote(self, key: str) -> None:
        """Raise a waiter's priority: a connection waits for it now."""
        for priority, _, name, turn in self._waiting:
            if name == key and priority != Priority.WAITING and not turn.done():
                entry = (int(Priority.WAITING), next(self._order), key, turn)
                heapq.heappush(self._waiting, entry)
                return

    def _wake(self) -> None:
        while self._free and self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
