"""An event loop whose clock jumps to the next deadline instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

from tests.support.clock import START


class _Selector(selectors.SelectSelector):
    """Reports that the time has passed, without letting it pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now_s += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    def run_in_executor(self, executor: Any, call: Any, *arguments: Any) -> asyncio.Future[Any]:
        """Done in place: no time passes while a thread works."""
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(call(*arguments))
        except Exception as exc:
            done.set_exception(exc)
        return done

    def call_later(self, delay: float, *arguments: Any, **more: Any) -> asyncio.TimerHandle:
        # Below this, rounding could keep a deadline for ever just ahead.
        return super().call_later(max(delay, 1e-6), *arguments, **more)


def run_virtual(whole: Coroutine[Any, Any, None]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(whole)
    finally:
        loop.close()


class TwoClocks:
    """The monotonic clock is that of the loop; the wall clock may be set, or go on in a sleep."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self.set_by_s = 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic_s() + self.set_by_s)

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()
