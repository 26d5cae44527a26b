"""Differences of waypoints that are not encoded yet, in small parts: so many a publication.

A Gateway may have thousands of services, a millisecond or two of work each, and nodes wait for the
same publication. Waypoints take turns; of one name the latest counts. Backends come before fronts,
which name them, and go after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from control.model.identity import SpiffeId
from control.model.route import Backend, Front, WaypointDelta, WaypointKey

PARTS_MAX: Final = 64  # a publication: some 0.1 s
TURN: Final = 8  # parts, before it is another waypoint's turn


@dataclass(slots=True)
class _UnencodedParts:
    account: SpiffeId
    backends: dict[str, Backend] = field(default_factory=dict)
    fronts: dict[str, Front | None] = field(default_factory=dict)
    gone: dict[str, None] = field(default_factory=dict)  # backends

    def __len__(self) -> int:
        return len(self.backends) + len(self.fronts) + len(self.gone)

    def merge(self, delta: WaypointDelta) -> None:
        for name, backend in delta.backends.items():
            if backend is None:
                self.backends.pop(name, None)
                self.gone[name] = None
            else:
                self.gone.pop(name, None)
                self.backends[name] = backend
        self.fronts.update(delta.fronts)

    def take(self, key: WaypointKey) -> WaypointDelta:
        """One of each waypoint's names, or none of a waypoint without any."""
        if self.backends:
            name = next(iter(self.backends))
            return WaypointDelta(key, self.account, backends={name: self.backends.pop(name)})
        if self.fronts:
            name = next(iter(self.fronts))
            return WaypointDelta(key, self.account, fronts={name: self.fronts.pop(name)})
        if self.gone:
            name = next(iter(self.gone))
            del self.gone[name]
            return WaypointDelta(key, self.account, backends={name: None})
        return WaypointDelta(key, self.account)


class Unencoded:
    def __init__(self) -> None:
        self._waiting: dict[WaypointKey, _UnencodedParts] = {}  # the next one first

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, key: WaypointKey) -> bool:
        return key in self._waiting

    def add(self, delta: WaypointDelta) -> None:
        self._waiting.setdefault(delta.key, _UnencodedParts(delta.account)).merge(delta)

    def drop(self, key: WaypointKey) -> None:
        """There is no such waypoint any more."""
        self._waiting.pop(key, None)

    def take(self) -> Iterator[WaypointDelta]:
        """The parts of one publication."""
        left = PARTS_MAX
        while left > 0 and self._waiting:
            key = next(iter(self._waiting))
            waiting = self._waiting.pop(key)
            for _ in range(min(TURN, left)):
                left -= 1
                part = waiting.take(key)
                is_last = not len(waiting)
                yield part
                if is_last:
                    break
            else:
                self._waiting[key] = waiting
