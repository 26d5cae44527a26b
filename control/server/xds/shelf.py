"""Resources that are shown to the same clients, and a log of what changed among them.

A client that has been told everything holds the shelf as it was at one revision. So a number is
all that has to be kept of it, and the log says what it is owed: what changed after that revision,
and the version that it held before. Costs what changed, whatever the size of the mesh.

The log goes back to the client that is furthest behind, and has a bound: a client that falls behind
it has to come back with the versions that it holds. The last change is always in it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import ReferenceType, WeakSet, ref

from control.kit.slices import done, portions
from control.server.xds.buckets import Buckets
from control.server.xds.difference import (
    RESPONSE_BYTES_MAX,
    ShelfDifference,
    difference_steps,
)
from control.server.xds.resource import CachedResource
from control.wire.sums import ALL_BUCKETS, bucket_of

# Records of the log, beside four for each resource: a change of the whole mesh while nodes are
# still taking in the one before. Some 120 bytes each.
LOG_MIN = 16384
TRIM_FROM = 1024  # fewer are not worth looking for the client that is furthest behind
TRIMMED = 32  # records a step
# Clients at different revisions; those at others have a difference of their own.
DIFFERENCES_MAX = 64
# Lists that clients have brought; as many as are remembered.
PLACED_MAX = 4
# Resources of a change whose difference is worked out before anybody is told, in steps: 50,000 of
# them are 30 ms.
PREPARED_MIN = 2048
PREPARED_FOR = 2  # revisions at which most clients stand

Odd = Mapping[str, str | None]  # name → version that is held other than supposed; None: none

# In place of a version that is not the current one.
OLD = "-"  # there is such a resource, in another version
FOREIGN = ""  # there is none: the client will be told

Record = tuple[int, str, str | None]  # revision, name, version before it; None: there was none


class HeldVersions(dict[str, str]):
    """Names and versions that many clients have brought, never changed: what was found out about
    it counts for all of them, for as long as it lives."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True)
class _Placed:
    held: ReferenceType[HeldVersions]
    buckets: frozenset[int]  # that the client was asked about
    at: int
    odd: Odd

    def is_of(self, held: HeldVersions, buckets: frozenset[int]) -> bool:
        return self.held() is held and self.buckets == buckets


class ShelfPlace:
    """A client's place on a shelf."""

    __slots__ = ("__weakref__", "at")

    def __init__(self, at: int) -> None:
        self.at = at  # revision; 0: nothing is held


class Shelf:
    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.entries: dict[str, CachedResource] = {}
        self.latest = 0  # revision that changed it last
        self.size_bytes = 0
        self.start = 0  # what came after this revision is in the log
        self.places: WeakSet[ShelfPlace] = WeakSet()
        self._log: deque[Record] = deque()
        self._recorded = 0  # records with the latest revision
        self._versions: Mapping[str, str] | None = None
        # Until the next change. `_owed`: to clients that came back with one list.
        self._differences: dict[tuple[int, int], ShelfDifference] = {}
        self._owed: dict[tuple[int, int, int], tuple[Odd, ShelfDifference]] = {}
        # Places of lists: good for as long as the log goes back to them.
        self._placed: list[_Placed] = []
        self._buckets: Buckets | None = None

    @property
    def buckets(self) -> Buckets:
        """Kept up from when somebody first asks."""
        if self._buckets is None:
            self._buckets = Buckets(self.entries)
            for name in self.entries:
                self._buckets.add(name)
        return self._buckets

    def put(self, entry: CachedResource, revision: int) -> None:
        known = self.entries.get(entry.name)
        self.entries[entry.name] = entry
        self.size_bytes += len(entry.framed) - (0 if known is None else len(known.framed))
        if known is None or known.version != entry.version:
            if self._buckets is not None:
                (self._buckets.add if known is None else self._buckets.change)(entry.name)
            self._record(revision, entry.name, None if known is None else known.version)

    def remove(self, name: str, revision: int) -> None:
        known = self.entries.pop(name)
        self.size_bytes -= len(known.framed)
        if self._buckets is not None:
            self._buckets.remove(name)
        self._record(revision, name, known.version)

    def _record(self, revision: int, name: str, before: str | None) -> None:
        self._versions = None
        self._differences.clear()
        self._owed.clear()
        if not self.places:  # nobody needs the past; `settle` drops it
            self.start = self.latest = revision
            return
        if revision != self.latest:
            self.latest, self._recorded = revision, 0
        self._log.append((revision, name, before))
        self._recorded += 1

    def settle(self) -> Iterator[None]:
        """In steps, after the last of a revision and before anybody is told of it."""
        if len(self._log) >= (TRIM_FROM if self.places else 1):
            yield from self._trim()
        if self._recorded >= PREPARED_MIN and self.places:
            yield from self._prepare()

    def _trim(self) -> Iterator[None]:
        """Forget what every client knows, and what is too long ago."""
        log = self._log
        behind = min((each.at for each in self.places if each.at), default=self.latest)
        most = LOG_MIN + 4 * len(self.entries)
        newest = log[-1][0]
        # A revision is dropped whole, or who stands before it would miss half of it.
        while log and (
            log[0][0] <= max(behind, self.start) or (len(log) > most and log[0][0] < newest)
        ):
            self.start = max(self.start, log.popleft()[0])
            if not len(log) % TRIMMED:
                yield

    def _prepare(self) -> Iterator[None]:
        """Work out what those are owed who stand where most do."""
        standing = Counter(each.at for each in self.places if 0 < each.at < self.latest)
        for at, _ in standing.most_common(PREPARED_FOR):
            held = yield from self._held_before(at)
            found = yield from self._compare(held, held, RESPONSE_BYTES_MAX)
            self._differences[at, RESPONSE_BYTES_MAX] = found

    @property
    def average_bytes(self) -> int:
        """Bytes of a response for one resource, on average."""
        return self.size_bytes // len(self.entries) if self.entries else 0

    def versions(self) -> Mapping[str, str]:
        """Names and versions as they are now, in a table that never changes."""
        if self._versions is None:
            self._versions = {each.name: each.version for each in self.entries.values()}
        return self._versions

    def place_of(self, held: Mapping[str, str]) -> tuple[int, Odd]:
        """Revision of which these names and versions are nearly the state, and what is held other
        than that. Many come back with the same object."""
        if not isinstance(held, HeldVersions):
            return self._place_of(held)
        for each in self._placed:
            if each.is_of(held, ALL_BUCKETS) and not self.has_lost(each.at):
                return each.at, each.odd
        return self._keep(held, ALL_BUCKETS, *self._place_of(held))

    def place_among(
        self, held: Mapping[str, str], buckets: frozenset[int], at: int
    ) -> tuple[int, Odd]:
        """Place of a client that holds this of some buckets, and of the others the state of this
        revision."""
        if not isinstance(held, HeldVersions):
            return at, self._odd_among(held, buckets, at)
        for each in self._placed:
            if each.is_of(held, buckets) and each.at == at:
                return at, each.odd
        return self._keep(held, buckets, at, self._odd_among(held, buckets, at))

    def _keep(
        self, held: HeldVersions, buckets: frozenset[int], at: int, odd: Odd
    ) -> tuple[int, Odd]:
        alive = [each for each in self._placed if each.held() not in (None, held)]
        self._placed = [*alive[1 - PLACED_MAX :], _Placed(ref(held), buckets, at, odd)]
        return at, odd

    def _odd_among(self, held: Mapping[str, str], buckets: frozenset[int], at: int) -> Odd:
        """Names that changed since are odd as well: the client has said what it holds of them."""
        before, versions = self.held_before(at), self.versions()
        odd: dict[str, str | None] = dict(
            self._marked(name, version)
            for name, version in held.items()
            if name in before or versions.get(name) != version
        )
        here = (name for each in buckets for name in self.buckets.names_in(each))
        gone = (name for name in before if bucket_of(name) in buckets)
        odd.update((name, None) for name in (*here, *gone) if name not in held)
        return odd

    def placing(self, held: HeldVersions) -> Iterator[None]:
        """Find the place of a list, in steps, for all who come with it: for nothing, if something
        changes meanwhile."""
        at = self.latest
        if any(each.is_of(held, ALL_BUCKETS) for each in self._placed):
            return
        found = yield from self._placing(held, tuple(self.entries.values()))
        if self.latest == at:
            self._keep(held, ALL_BUCKETS, *found)

    def _place_of(self, held: Mapping[str, str]) -> tuple[int, Odd]:
        if held == self.versions():
            return self.latest, {}
        return done(self._placing(held, tuple(self.entries.values())))

    def _placing(
        self, held: Mapping[str, str], entries: Sequence[CachedResource]
    ) -> Generator[None, None, tuple[int, Odd]]:
        at, odd = self.latest, dict[str, str | None]()
        if 2 * len(held) < len(entries):
            return 0, dict(self._marked(name, held[name]) for name in held)
        here = 0
        for part in portions(entries):
            for entry in part:
                version = held.get(entry.name)
                here += version is not None
                if version != entry.version:
                    odd[entry.name] = None if version is None else OLD
            yield
        if here < len(held):
            for names in portions(held):
                foreign = (name for name in names if name not in self.entries)
                odd.update(dict.fromkeys(foreign, FOREIGN))
                yield
        return at, odd

    def _marked(self, name: str, version: str) -> tuple[str, str]:
        """Name and version are the cache's own, so they take no more memory than those of a client
        that was sent everything."""
        entry = self.entries.get(name)
        if entry is None:
            return name, FOREIGN
        return entry.name, entry.version if version == entry.version else OLD

    def has_lost(self, at: int) -> bool:
        """True if what came after this revision is not known any more."""
        return 0 < at < self.start

    def count_since(self, at: int) -> int:
        """Resources that a client at this revision has to be told of, at most."""
        return len(self.held_before(at)) if at else len(self.entries)

    def held_before(self, at: int) -> dict[str, str | None]:
        """Names that changed after a revision, with the version that was in force at it."""
        return done(self._held_before(at))

    def _held_before(self, at: int) -> Generator[None, None, dict[str, str | None]]:
        found: dict[str, str | None] = {}
        for part in portions(reversed(self._log)):
            for revision, name, before in part:
                if revision <= at:
                    return found
                found[name] = before  # the oldest one stays
            yield
        return found

    def difference(self, at: int, response_bytes_max: int = RESPONSE_BYTES_MAX) -> ShelfDifference:
        """All that a client at this revision is owed, encoded once for all of them."""
        key = at, response_bytes_max
        found = self._differences.get(key)
        if found is None:
            if at == 0 and self.size_bytes <= response_bytes_max:
                whole = tuple(self.entries.values())
                parts = (whole,) if whole else ()
                sizes = (self.size_bytes,) if whole else ()
                found = ShelfDifference(self.type_url, self.latest, parts, sizes, ())
            elif at == 0:
                found = done(self._differ(self.entries.values(), (), response_bytes_max))
            else:
                held = self.held_before(at)
                found = done(self._compare(held, held, response_bytes_max))
            if len(self._differences) < DIFFERENCES_MAX:
                self._differences[key] = found
        return found

    def owed(
        self, at: int, odd: Odd, response_bytes_max: int = RESPONSE_BYTES_MAX
    ) -> ShelfDifference:
        """All that a client is owed that holds what came at this revision, but for some names."""
        key = at, id(odd), response_bytes_max
        known = self._owed.get(key)
        if known is not None:
            return known[1]
        held = {**self.held_before(at), **odd} if at else odd
        names = held if at else dict.fromkeys([*self.entries, *held])
        found = done(self._compare(names, held, response_bytes_max))
        if len(self._owed) < PLACED_MAX:
            self._owed[key] = odd, found
        return found

    def _compare(
        self, names: Iterable[str], held: Mapping[str, str | None], response_bytes_max: int
    ) -> Generator[None, None, ShelfDifference]:
        """The difference, among some names, from the versions that somebody holds."""
        added: list[CachedResource] = []
        removed: list[str] = []
        for part in portions(names):
            for name in part:
                entry, version = self.entries.get(name), held.get(name)
                if entry is None:
                    if version is not None:
                        removed.append(name)
                elif version != entry.version:
                    added.append(entry)
            yield
        return (yield from self._differ(added, removed, response_bytes_max))

    def _differ(
        self, added: Iterable[CachedResource], removed: Iterable[str], response_bytes_max: int
    ) -> Generator[None, None, ShelfDifference]:
        return difference_steps(self.type_url, self.latest, added, removed, response_bytes_max)
