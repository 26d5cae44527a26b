"""Decides about one Lease: to make it, renew it, take it over, or leave it to its holder. Pure.

A holder is believed gone when its record has not changed for the lease's whole duration on *our*
monotonic clock: clocks of other machines may be wrong by hours. Times have microseconds that always
differ, since a PUT which changes nothing keeps its version and so excludes nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

DURATION_S: Final = 15
RENEW_S: Final = 10.0  # without a renewal for so long, the holder writes no more
RETRY_S: Final = 2.0
DURATION_S_MAX: Final = 600  # what another holder says of itself is believed up to here


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease's spec, with the version that it was read at."""

    version: str
    holder: str = ""
    duration_s: int = DURATION_S
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0

    @property
    def sign(self) -> tuple[str, str]:
        """It changes with each renewal."""
        return (self.holder, self.renewed)


def micro(now: datetime, after: str = "") -> str:
    """A MicroTime, later than `after` even if the clock went back."""
    text = _text(now)
    if not after or text > after:
        return text
    try:
        last = datetime.strptime(after, _FORMAT).replace(tzinfo=now.tzinfo)
    except ValueError:
        return text
    return _text(last + timedelta(microseconds=1)) if text == after else text


_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


def _text(moment: datetime) -> str:
    return moment.strftime(_FORMAT)


class LeaseCandidate:
    """One replica's view of the Lease. `identity` is no other's."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._seen: tuple[str, str] | None = None
        self._seen_s = 0.0
        self._holds_until_s = float("-inf")
        self.holder = ""

    def holds(self, now_s: float) -> bool:
        """True while nobody else can have it: this replica may write."""
        return now_s < self._holds_until_s

    def next(self, found: LeaseRecord | None, now_s: float, now: datetime) -> LeaseRecord | None:
        """The record to write over `found` (None: there is none); None: leave it alone."""
        if found is None:
            stamp = micro(now)
            return LeaseRecord("", self.identity, DURATION_S, stamp, stamp)
        if found.sign != self._seen:
            self._seen, self._seen_s = found.sign, now_s
        self.holder = found.holder
        if found.holder == self.identity:
            return replace(found, renewed=micro(now, found.renewed), duration_s=DURATION_S)
        self._holds_until_s = float("-inf")
        duration_s = min(max(found.duration_s, 1), DURATION_S_MAX)
        if found.holder and now_s < self._seen_s + duration_s:
            return None
        stamp = micro(now, found.renewed)
        return LeaseRecord(
            found.version, self.identity, DURATION_S, stamp, stamp, found.transitions + 1
        )

    def written(self, answer: LeaseRecord, asked_s: float) -> None:
        """The API server took a record, and this is it; `asked_s`: when it was asked."""
        self.holder = answer.holder
        self._seen, self._seen_s = answer.sign, asked_s
        is_ours = answer.holder == self.identity
        self._holds_until_s = asked_s + RENEW_S if is_ours else float("-inf")

    def lost(self) -> None:
        """Another one was faster."""
        self._holds_until_s = float("-inf")

    def released(self, found: LeaseRecord) -> LeaseRecord | None:
        """The record that gives it back; None: it is not ours."""
        if found.holder != self.identity:
            return None
        return replace(found, holder="", duration_s=1)
