"""The clock. Nothing else asks for the time, so a test can set it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
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
