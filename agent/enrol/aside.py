"""Kernel objects that are made in a thread, because the kernel takes its time for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar


class Opened(Protocol):
    def close(self) -> None: ...


Made = TypeVar("Made", bound=Opened)


async def made_aside(make: Callable[[], Made]) -> Made:
    """Call `make` in a thread; its outcome is closed if nobody waits for it any more."""
    making = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_close)
        raise


def _close(making: asyncio.Future[Made]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()
