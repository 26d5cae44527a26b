"""Tells whether the workers were sent all that the state has; passes nothing on itself.

Entries are applied to the supervisor's state first. The workers may have to wait for them until the
kernel knows (direct.py), and whoever reads the state meanwhile must not take it for theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Passing:
    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._over.set()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Entries that the state has are on their way. One caller at a time."""
        self._over.clear()
        try:
            yield
        finally:
            self._over.set()

    async def over(self, within_s: float) -> bool:
        """True at a moment when all of them are sent; what the caller reads without a pause after
        that is what the workers were sent. False: not within this time."""
        try:
            async with asyncio.timeout(within_s):
                while not self._over.is_set():
                    await self._over.wait()
        except TimeoutError:
            return False
        return True
