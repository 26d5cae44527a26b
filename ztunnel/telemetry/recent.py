"""Refusals of late, for `tulle refusals`: of whom, to where, why, how often and when last.

Equal ones share an entry. Each source has its own few, so that one that is refused again and again
does not push out what others have to know. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from control.model.address import format_address
from control.model.workload import Workload
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.parties import Parties, Reporter, endpoint_text

# 1,024 entries of some 1 KiB at most.
SOURCES_MAX: Final = 64
ENTRIES_MAX: Final = 16
# A peer's words may be in it; access lines are cut there, too.
ERROR_CHARS_MAX: Final = 256

_MEANINGS: Final = {each.word: each.meaning for each in Reason} | {
    "the peer answered 401": "a policy at the destination denies it (the peer answered 401)",
    "the peer answered 503": "the destination cannot be reached there (the peer answered 503)",
}
_Key = tuple[str, str, str, str]


class RefusedAlike:
    """Connections that were refused alike."""

    __slots__ = ("_shown", "count", "last")

    def __init__(self, parties: Parties, flag: Flag, error: str) -> None:
        self.count = 0
        self.last: datetime | None = None
        self._shown = _shown(parties, flag, error)

    def view(self, worker: int) -> dict[str, Any]:
        last = "" if self.last is None else self.last.isoformat()
        return {**self._shown, "count": self.count, "lastAt": last, "worker": worker}


class RecentRefusals:
    def __init__(self) -> None:
        self._sources: dict[str, dict[_Key, RefusedAlike]] = {}

    def add(self, parties: Parties, flag: Flag, error: str, now: datetime) -> None:
        error = error[:ERROR_CHARS_MAX]
        source = parties.source
        name = source.uid if source else format_address(parties.source_address.address)
        entries = self._sources.pop(name, None)
        if entries is None:
            entries = {}
            if len(self._sources) >= SOURCES_MAX:
                del self._sources[next(iter(self._sources))]
        self._sources[name] = entries  # last of all: the newest
        key: _Key = (parties.reporter.value, flag.value, error, _aim(parties))
        found = entries.pop(key, None)
        if found is None:
            found = RefusedAlike(parties, flag, error)
            if len(entries) >= ENTRIES_MAX:
                del entries[next(iter(entries))]
        entries[key] = found
        found.count += 1
        found.last = now

    def all(self) -> Iterator[RefusedAlike]:
        for entries in self._sources.values():
            yield from entries.values()


def _aim(p: Parties) -> str:
    """The address and port that the client meant, as far as this side knows."""
    if p.original is not None:
        return str(p.original)
    return endpoint_text(p.destination_address if p.target is None else p.target)


def _shown(p: Parties, flag: Flag, error: str) -> dict[str, Any]:
    return {
        "direction": "outbound" if p.reporter is Reporter.SOURCE else "inbound",
        "src": endpoint_text(p.source_address),
        "dst": _aim(p),
        "sourceWorkload": _name(p.source),
        "destinationWorkload": _name(p.destination),
        "sourceIdentity": str(p.source_identity or ""),
        "service": p.service.hostname if p.service else "",
        "responseFlags": flag.value,
        "error": error,
        "meaning": _MEANINGS.get(error, ""),
    }


def _name(workload: Workload | None) -> str:
    return f"{workload.namespace}/{workload.name}" if workload is not None else ""
