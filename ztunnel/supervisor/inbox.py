"""Responses of the control plane that were read and wait to be worked off; decides the order.

They are worked off as they came, with one exception: new and changed policies do not wait behind
thousands of addresses. Nobody is let in by that who would not be otherwise: until then the policy
before it is in force. A policy that is *removed* waits for its turn, because a workload may still
name it, and the addresses before it may be what gives that workload another one.
"""

from __future__ import annotations

import asyncio
from collections import deque

from control.wire.delta import Update
from control.wire.types import AUTHORIZATION_TYPE

# A server has one response of a type in flight; beyond this the rest waits in the stream.
WAITING_MAX = 4


class Inbox:
    def __init__(self) -> None:
        self._waiting: deque[Update] = deque()
        self._end: Exception | None = None
        self._changed = asyncio.Condition()

    async def put(self, update: Update) -> None:
        """Waits while there are too many."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._waiting) < WAITING_MAX)
            self._waiting.append(update)
            self._changed.notify_all()

    async def end(self, why: Exception) -> None:
        """Nothing more comes."""
        async with self._changed:
            self._end = why
            self._changed.notify_all()

    async def next(self) -> Update:
        """After the last one: why it was the last, raised."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting or self._end is not None)
            if not self._waiting and self._end is not None:
                raise self._end
            update = self._waiting.popleft()
            self._changed.notify_all()
            return update

    def urgent(self) -> Update | None:
        """What need not wait for its turn. Policies never overtake each other."""
        for update in self._waiting:
            if update.type_url == AUTHORIZATION_TYPE:
                if update.removed:
                    return None
                self._waiting.remove(update)
                return update
        return None
