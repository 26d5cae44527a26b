"""Sums of a shelf by buckets of names, kept up: a change costs the buckets that it is in.

They are what clients that come back are compared with. They are computed at the end of a change,
bucket by bucket, so that no client ever waits for those of a whole mesh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from control.server.xds.resource import CachedResource
from control.wire.sums import BUCKETS, NO_ENTRIES, bucket_of, sum_of


class Buckets:
    """`entries` are the shelf's, read when sums are computed."""

    def __init__(self, entries: Mapping[str, CachedResource]) -> None:
        self._entries = entries
        self._names: list[list[str]] = [[] for _ in range(BUCKETS)]
        self._sums = [NO_ENTRIES] * BUCKETS
        self._changed: set[int] = set()

    def add(self, name: str) -> None:
        bucket = bucket_of(name)
        self._names[bucket].append(name)
        self._changed.add(bucket)

    def change(self, name: str) -> None:
        self._changed.add(bucket_of(name))

    def remove(self, name: str) -> None:
        bucket = bucket_of(name)
        self._names[bucket].remove(name)
        self._changed.add(bucket)

    def steps(self) -> Iterator[None]:
        """Compute what changed, one bucket a step."""
        while self._changed:
            self._sum(self._changed.pop())
            yield

    def sums(self) -> Sequence[bytes]:
        for _ in self.steps():
            pass
        return self._sums

    def names_in(self, bucket: int) -> Sequence[str]:
        return self._names[bucket]

    def differing(self, sums: Sequence[bytes]) -> frozenset[int]:
        """Buckets of which others have another sum."""
        own = self.sums()
        return frozenset(each for each in range(BUCKETS) if own[each] != sums[each])

    def _sum(self, bucket: int) -> None:
        entries = self._entries
        self._sums[bucket] = sum_of((each, entries[each].version) for each in self._names[bucket])
