"""The clock. Nothing else asks for the time, so a test can set it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall clock, aware, UTC: for certificates and logs. It may jump."""

    def monotonic_s(self) -> float:
        """Seconds that never go back: for timeouts, ages and back-off."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 this is the one place

    monotonic_s = staticmethod(time.monotonic)  # no wrapper: each connection asks


class PassedTime:
    """The wall clock, as far as time has passed since we began: one that is set ahead is not
    followed. For what has to wait for long enough; never for what is valid until a moment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began, self._began_s = clock.now(), clock.monotonic_s()

    def now(self) -> datetime:
        """The wall clock's time at most."""
        passed = timedelta(seconds=self._clock.monotonic_s() - self._began_s)
        return min(self._clock.now(), self._began + passed)
