"""A client that is shown a whole shelf.

All that is kept of it is the revision of the shelf that it holds, and what it holds other than
that: `odd`, which is empty but for clients that came back with versions, and for removed names
that are held back. So most clients are told the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import ClassVar

from control.kit.errors import WireError
from control.server.callers.refusals import CallRefusal
from control.server.xds.difference import RESPONSE_BYTES_MAX, ShelfDifference
from control.server.xds.names import KeptNames
from control.server.xds.response import Encode, encode
from control.server.xds.shelf import FOREIGN, OLD, HeldVersions, Odd, Shelf, ShelfPlace
from control.server.xds.subscription import NOTHING, Due

CHEAP_MAX = 256  # names; less than a tenth of a millisecond


class Behind(WireError):
    """The log does not go back to what the client holds."""

    why = CallRefusal.BEHIND


class Follower(ShelfPlace):
    __slots__ = (
        "_found",
        "_is_own",
        "_is_shared",
        "_names",
        "_odd",
        "_response_bytes_max",
        "_shelf",
        "_told",
    )

    wildcard: ClassVar[bool] = True
    must_answer: ClassVar[bool] = False

    def __init__(
        self, shelf: Shelf, names: KeptNames, response_bytes_max: int = RESPONSE_BYTES_MAX
    ) -> None:
        super().__init__(at=0)
        self._shelf = shelf
        self._names = names
        self._response_bytes_max = response_bytes_max
        self._odd: Odd = {}  # name → version that is held; None: it is not
        self._is_shared = False  # `_odd` is that of others too
        self._found: ShelfDifference | None = None
        self._is_own = False  # nobody else is told `_found`
        self._told = 0  # its parts that went out
        shelf.places.add(self)

    def take_over(self, held: Mapping[str, str]) -> None:
        """The client holds these already, by name and version."""
        self.start_from(*self._shelf.place_of(held), is_shared=isinstance(held, HeldVersions))

    def start_from(self, at: int, odd: Odd, *, is_shared: bool) -> None:
        """The client holds what came at this revision, but for `odd`."""
        for name, version in odd.items():
            if version == FOREIGN:
                self._names.keep(name)
        self.at, self._odd, self._is_shared = at, odd, is_shared

    def held(self) -> dict[str, str]:
        """Names and versions that the client holds."""
        found: dict[str, str | None] = {}
        if self.at:
            found = {**self._shelf.versions(), **self._shelf.held_before(self.at)}
        found.update(self._odd)
        if self._found is not None:
            told = self._found.parts[: self._told]
            found.update((each.name, each.version) for part in told for each in part)
        return {name: version for name, version in found.items() if version is not None}

    @property
    def held_count(self) -> int:
        if self._told:
            return len(self.held())
        entries, count = self._shelf.entries, 0
        apart = dict(self._odd)
        if self.at:
            apart = {**self._shelf.held_before(self.at), **apart}
            count = len(entries) - sum(name in entries for name in apart)
        return count + sum(version is not None for version in apart.values())

    @property
    def pending_count(self) -> int:
        return self._shelf.count_since(self.at) + len(self._odd)

    def changed(self, names: Collection[str]) -> None:
        pass  # the shelf says it

    @property
    def has_news(self) -> bool:
        return self.at < self._shelf.latest or bool(self._odd)

    def _difference(self) -> ShelfDifference | None:
        found = self._found
        if found is not None and (self._told or found.until == self._shelf.latest):
            return found
        self._found = None
        if not self.has_news:
            return None
        if self._shelf.has_lost(self.at):
            raise Behind("come back with what you hold")
        self._is_own = bool(self._odd) and not self._is_shared
        found = self._compare()
        if not found:  # taken back before it was sent
            self.at, self._odd = found.until, {}
            return None
        self._found = found
        return found

    @property
    def _most(self) -> int:
        return self._response_bytes_max

    def _compare(self) -> ShelfDifference:
        if not self._odd:
            return self._shelf.difference(self.at, self._most)
        return self._shelf.owed(self.at, self._odd, self._most)

    def due(self) -> Due:
        found = self._difference()
        return NOTHING if found is None else Due(found.parts[self._told :], found.removed)

    def estimate_bytes(self) -> int:
        """About the size of the next response."""
        if self._odd and self._found is None:
            return min(self.pending_count * self._shelf.average_bytes, self._most)
        found = self._difference()
        return 0 if found is None else min(found.size_bytes, self._most)

    @property
    def is_cheap(self) -> bool:
        if self._odd and self._found is None:
            return self.at > 0 and len(self._odd) < CHEAP_MAX
        return len(self._difference() or ()) < CHEAP_MAX

    def take(self, *, with_removed: bool) -> Encode:
        """The client is told the next part."""
        found = self._difference()
        if found is None:
            return partial(encode, self._shelf.type_url, pieces=(), removed=())
        part, self._told = self._told, self._told + 1
        is_last = self._told >= len(found.parts)
        with_removed = with_removed and is_last
        is_own = self._is_own
        if is_last:
            self._settle(found, () if with_removed else found.removed)
        return partial(found.tell, part, with_removed=with_removed, is_own=is_own)

    def _settle(self, found: ShelfDifference, held_back: tuple[str, ...]) -> None:
        before = self._odd
        self._odd = {name: before.get(name, OLD) for name in held_back}
        self._is_shared = False
        for name, version in before.items():
            if version == FOREIGN and name not in self._odd:
                self._names.release(name)
        self.at, self._found, self._told = found.until, None, 0

    def close(self) -> None:
        """Another way is gone from here on."""
        self._shelf.places.discard(self)
        for name, version in self._odd.items():
            if version == FOREIGN:
                self._names.release(name)
