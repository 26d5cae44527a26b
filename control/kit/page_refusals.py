"""Every reason for which a page is not served: its word and its meaning; counted and logged.

Counters, log lines and docs/refusals.md are made from this table.
"""

from __future__ import annotations

import logging
from collections import Counter
from enum import unique

from control.kit.log import event
from control.kit.reasons import WordedReason

log = logging.getLogger("http")

LINES_EVERY_S = 1.0  # a line of each reason at most; the others are counted


@unique
class PageRefusal(WordedReason):
    DISPLACED = (
        "displaced",
        "its source, or all together, had too many connections: the oldest went",
    )
    CONNECTIONS_MAX = "connections_max", "the unix socket has too many requests under way"
    CONNECTIONS_RATE = "connections_rate", "its address opens too many connections a second"
    SLOW_REQUEST = "slow_request", "the request was not whole in time"
    SLOW_READER = "slow_reader", "the client took too long to take the answer"
    HEAD_TOO_LARGE = "head_too_large", "the request's head is larger than any that we need"
    BODY_TOO_LARGE = "body_too_large", "the request's body is larger than any that we take"
    MALFORMED = "malformed", "the client does not speak HTTP/1.1"
    FOREIGN_HOST = "foreign_host", "the request is for another host, or comes from a web page"
    ADMIN_ONLY = "admin_only", "the page is on the unix socket, for root and our own user"


class PageRefusals:
    """Counts of one process, by door and reason, and their sampled log lines."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._lines: dict[tuple[str, str], tuple[float, int]] = {}  # last line at, left out since

    def count(self, door: str, why: PageRefusal, now_s: float, **fields: object) -> None:
        key = (door, why.word)
        self.counts[key] += 1
        written_s, left_out = self._lines.get(key, (float("-inf"), 0))
        if now_s - written_s < LINES_EVERY_S:
            self._lines[key] = (written_s, left_out + 1)
            return
        self._lines[key] = (now_s, 0)
        if left_out:
            fields["left_out"] = left_out
        event(log, logging.WARNING, "http.refused", door=door, reason=why.word, **fields)


# A process has one table, as it has one log: doors know nothing of the metrics page beside them.
refusals = PageRefusals()
