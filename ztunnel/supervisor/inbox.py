"""Responses of the control plane that wait to be applied; decides their order.

They are applied in the order in which they came, with one exception: new and changed policies do
not wait behind thousands of addresses. This lets nobody in who would not get in otherwise, since
the policy before it stays in force until then. A *removed* policy waits for its turn: a workload
may still name it, and the addresses before it may give that workload another one.
"""

from __future__ import annotations

import asyncio
from collections import deque

from control.wire.delta import Update
from control.wire.types import AUTHORIZATION_TYPE

# A server has one response of each type in flight; beyond this they wait in the stream.
WAITING_MAX = 4


class Inbox:
    """Queue between the task that reads and the one that applies."""

    def __init__(self) -> None:
        self._waiting: deque[Update] = deque()
        self._end: Exception | None = None
        self._changed = asyncio.Condition()

    async def put(self, update: Update) -> None:
        """Add a response; wait while there are too many."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._waiting) < WAITING_MAX)
            self._waiting.append(update)
            self._changed.notify_all()

    async def end(self, why: Exception) -> None:
        """Say that nothing more comes. `next` raises `why` after the last response."""
        async with self._changed:
            self._end = why
            self._changed.notify_all()

    async def next(self) -> Update:
        """Next response. After the last one it raises the reason given to `end`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting or self._end is not None)
            if not self._waiting and self._end is not None:
                raise self._end
            update = self._waiting.popleft()
            self._changed.notify_all()
            return update

    def urgent(self) -> Update | None:
        """Response that need not wait for its turn. Policies never overtake each other."""
        for update in self._waiting:
            if update.type_url == AUTHORIZATION_TYPE:
                if update.removed:
                    return None
                self._waiting.remove(update)
                return update
        return None
