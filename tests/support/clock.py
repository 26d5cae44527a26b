"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._passed_s = 0.0
        self._set_by_s = 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed_s + self._set_by_s)

    def monotonic_s(self) -> float:
        return self._passed_s

    def pass_s(self, seconds: float) -> None:
        self._passed_s += seconds

    def jump_s(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time passes."""
        self._set_by_s += seconds
