"""Label sets whose workload or service has gone: dropped after a while, or at once for others.

A set keeps the names of those who were last counted in it. It is not dropped while a connection of
it is open, and counts again if another pod with the same labels uses it. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from ztunnel.telemetry.parties import Series

# Longer than the pause of any scraper: it has seen the last counts.
EXPIRE_S: Final = 300.0
# Sets looked at to make room for another, before that one is counted as "other".
LOOKS_MAX: Final = 64

Key = tuple[object, ...]


class Departed:
    def __init__(
        self,
        series: dict[Key, Series],
        known: Callable[[str], bool],
        dropped: Callable[[Series], None],
    ) -> None:
        """`dropped` hears of each set that is no longer there."""
        self._series = series
        self._on_dropped = dropped
        self._known = known
        self._names: set[str] = set()  # gone since the last look
        self._used: set[Key] = set()  # after somebody had gone: it may be back under its name
        self._since: dict[Key, float] = {}  # in order
        self._dropped: list[Series] = []

    def gone(self, name: str) -> None:
        """A workload (uid) or service (key) is no longer in the mesh."""
        if self._series:
            self._names.add(name)

    def used(self, key: Key, names: tuple[str, ...]) -> None:
        """These are counted there from now on; some may have gone while their connection was set
        up."""
        self._since.pop(key, None)
        if self._names:
            self._used.add(key)
        for name in names:
            if not self._known(name):
                self._names.add(name)

    def look(self, now_s: float, sets_max: int) -> Iterator[None]:
        """Find the sets of those that have gone, some at a time, and drop what has been idle."""
        names, self._names = self._names, set()
        used, self._used = self._used, set()
        if names:
            for number, (key, series) in enumerate(list(self._series.items()), 1):
                is_back = key in used and all(map(self._known, series.names))
                if not is_back and not names.isdisjoint(series.names):
                    self._since.setdefault(key, now_s)
                if not number % sets_max:
                    yield
        for key, since_s in list(self._since.items()):
            if now_s - since_s < EXPIRE_S:
                return
            self._drop(key, now_s)
            yield

    def _drop(self, key: Key, now_s: float) -> bool:
        """Drop a set, unless a connection is open in it: then it waits for another term."""
        del self._since[key]
        series = self._series.get(key)
        if series is None:
            return False
        if series.open > 0:
            self._since[key] = now_s
            return False
        del self._series[key]
        self._used.discard(key)
        series.gone = True
        self._on_dropped(series)
        if series.told:
            self._dropped.append(series)
        return True

    def make_room(self) -> bool:
        """Drop the set that has been idle for longest. False if there is none."""
        longest = list(islice(self._since.items(), LOOKS_MAX))
        return any(self._drop(key, since_s) for key, since_s in longest)

    def take_dropped(self) -> list[Series]:
        """Sets that were dropped since the last call, and that the supervisor still has."""
        taken, self._dropped = self._dropped, []
        return taken
