"""Answers and counters of a worker, joined as the supervisor joins them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ztunnel.ipc import merge_answer
from ztunnel.telemetry.counters import Counters, Row

ALL = 1_000_000


def every_row(counters: Counters) -> list[Row]:
    """Totals and every label set, whether the supervisor has it or not."""
    for series in counters._series.values():
        series.told = ()
    return [*counters.totals(), *(row for rows in counters.changed(ALL) for row in rows)]


def joined(pieces: Iterable[dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for piece in pieces:
        merge_answer(answer, piece)
    return answer
