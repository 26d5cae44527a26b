"""A client that asks for resources of a shelf by their own names.

Every name that it asks for is answered: by the resource or, when there is none, as removed, since
Envoy's listeners and clusters wait for one of the two. A change costs the names asked for that it
concerns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import ClassVar

from control.server.callers.refusals import CallRefusal
from control.server.xds.difference import RESPONSE_BYTES_MAX
from control.server.xds.names import BadRequest, KeptNames
from control.server.xds.resource import CachedResource
from control.server.xds.response import Encode, encode, fitted
from control.server.xds.shelf import FOREIGN, OLD, Shelf
from control.server.xds.subscription import Due

ASKED_MAX = 65536  # names one client may subscribe to, of one type
CHEAP_MAX = 256  # names


class ByName:
    wildcard: ClassVar[bool] = False

    def __init__(
        self,
        shelf: Shelf,
        names: KeptNames,
        asked: set[str],
        response_bytes_max: int = RESPONSE_BYTES_MAX,
    ) -> None:
        self._shelf = shelf
        self._names = names
        self._response_bytes_max = response_bytes_max
        self.asked = asked
        self.known: dict[str, str] = {}  # name → version that the client holds
        self.dirty: set[str] = set()  # names asked for to look at for the next response
        self.owed: set[str] = set()  # names asked for that must be answered

    def begin(self, subscribed: set[str], held: Mapping[str, str]) -> None:
        """The first request, with what the client holds of it."""
        self._ask(subscribed)
        for name in self.asked:
            version = held.get(name)
            if version is None:
                self.owed.add(name)
                continue
            entry = self._shelf.entries.get(name)
            if entry is None:
                self.known[name] = FOREIGN
            else:
                self.known[name] = entry.version if version == entry.version else OLD
        self.dirty.update(self.asked)

    def subscribe(self, subscribed: set[str], returned: set[str]) -> None:
        """Take in a later request. A name that is asked for again is answered again."""
        for name in returned & self.asked:
            self.asked.discard(name)
            self.owed.discard(name)
            self.dirty.discard(name)
            self.known.pop(name, None)
            self._names.release(name)
        fresh = subscribed - returned
        self._ask(fresh)
        for name in fresh:
            self.known.pop(name, None)
        self.owed |= fresh
        self.dirty |= fresh

    def _ask(self, names: Collection[str]) -> None:
        for name in names:
            if name not in self.asked:
                self._names.keep(name)
                self.asked.add(name)
        if len(self.asked) > ASKED_MAX:
            raise BadRequest(CallRefusal.TOO_MANY_NAMES, f"more than {ASKED_MAX} names subscribed")

    def changed(self, names: Collection[str]) -> None:
        self.dirty.update(self.asked.intersection(names))

    @property
    def has_news(self) -> bool:
        return bool(self.dirty or self.owed)

    @property
    def must_answer(self) -> bool:
        return bool(self.owed)

    @property
    def lacks(self) -> bool:
        """True while there is something of which the client holds no version at all."""
        entries = self._shelf.entries
        return any(name in entries and name not in self.known for name in self.dirty)

    @property
    def held_count(self) -> int:
        return len(self.known)

    @property
    def pending_count(self) -> int:
        return len(self.dirty)

    def held(self) -> Mapping[str, str]:
        return self.known

    def due(self) -> Due:
        return Due(*self._due())

    def _due(self) -> tuple[list[CachedResource], list[str]]:
        """Differences between shelf and client. Names without one are no longer dirty."""
        added, removed = [], []
        for name in sorted(self.dirty):
            entry, version = self._shelf.entries.get(name), self.known.get(name)
            if entry is None and version is not None:
                removed.append(name)
            elif entry is not None and version != entry.version:
                added.append(entry)
            else:
                self.dirty.discard(name)
        if not self.dirty:
            self.dirty = set()  # an emptied one keeps the room of all it has ever held
        return added, removed

    def estimate_bytes(self) -> int:
        """About the size of the next response, before anything is built."""
        return min(len(self.dirty) * self._shelf.average_bytes, self._response_bytes_max)

    @property
    def is_cheap(self) -> bool:
        return len(self.dirty) + len(self.owed) < CHEAP_MAX

    def take(self, *, with_removed: bool) -> Encode:
        """The client is told as much as fits into a response."""
        added, gone = self._due()
        pieces = fitted((entry.framed for entry in added), self._response_bytes_max)
        for entry in added[: len(pieces)]:  # the rest stays dirty
            self.known[entry.name] = entry.version
            self._told(entry.name)
        removed: list[str] = []
        if len(pieces) == len(added):
            removed = sorted(self.owed - self._shelf.entries.keys() - set(gone))
            if with_removed:
                removed = sorted([*removed, *gone])
            for name in removed:
                self.known.pop(name, None)
                self._told(name)
            self.owed.clear()
        return partial(encode, self._shelf.type_url, pieces=pieces, removed=removed)

    def _told(self, name: str) -> None:
        self.dirty.discard(name)
        self.owed.discard(name)
