"""All objects in force, by kind and key, changed one at a time. Pure.

It remembers what changed since it was last asked, so whoever follows it pays for changes alone. The
sorted tuples of `Objects` are made when somebody wants them, and only for kinds that changed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TypeAlias

from control.kit.slices import portions
from control.server.sources.objects import KIND_FIELDS, AnyObject, Key, Objects

# None: gone.
Changed: TypeAlias = Mapping[Key, AnyObject | None]


class Inventory:
    def __init__(self) -> None:
        self._kinds: dict[str, dict[Key, AnyObject]] = {kind: {} for kind in KIND_FIELDS}
        self._sorted: dict[str, tuple[AnyObject, ...]] = {}
        self._objects: Objects | None = None
        self._news: dict[Key, AnyObject | None] = {}

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def __iter__(self) -> Iterator[AnyObject]:
        return chain.from_iterable(kind.values() for kind in self._kinds.values())

    def get(self, key: Key) -> AnyObject | None:
        return self._kinds[key.kind].get(key)

    def kind(self, kind: str) -> Mapping[Key, AnyObject]:
        """All of a kind, as they are from now on."""
        return MappingProxyType(self._kinds[kind])

    def put(self, key: Key, value: AnyObject | None) -> bool:
        """Take over what is in force under a key, None for nothing; False if it was so before."""
        kind = self._kinds[key.kind]
        before = kind.get(key)
        if value is before or value == before:
            return False
        if value is None:
            del kind[key]
        else:
            kind[key] = value
        self._news[key] = value
        self._sorted.pop(key.kind, None)
        self._objects = None
        return True

    def replace(self, changed: Changed) -> None:
        """Take over what is known to differ."""
        for key, value in changed.items():
            if value is None:
                self._kinds[key.kind].pop(key, None)
            else:
                self._kinds[key.kind][key] = value
        for kind in {key.kind for key in changed}:
            self._sorted.pop(kind, None)
            self._objects = None

    def differing(self, found: Changed) -> dict[Key, AnyObject | None]:
        """The part of it that is not so already."""
        kinds = self._kinds
        return {
            key: value
            for key, value in found.items()
            if (before := kinds[key.kind].get(key)) is not value and before != value
        }

    def missing(self, found: Changed) -> Generator[None, None, list[Key]]:
        """The keys in force that it does not name; in steps."""
        missing: list[Key] = []
        for kind in self._kinds.values():
            for part in portions(kind):
                missing += (key for key in part if key not in found)
                yield
        return missing

    def news(self) -> Changed:
        """Everything that was put since the last call."""
        news, self._news = self._news, {}
        return news

    def whole(self) -> Changed:
        """All there is, as news."""
        self._news = {}
        return {key: value for kind in self._kinds.values() for key, value in kind.items()}

    def counts(self) -> dict[str, int]:
        return {kind: len(found) for kind, found in self._kinds.items()}

    def objects(self) -> Objects:
        """Each kind sorted by key; the same tuple as before if nothing of the kind has changed."""
        if self._objects is None:
            for kind, found in self._kinds.items():
                if kind not in self._sorted:
                    self._sorted[kind] = tuple(found[key] for key in sorted(found))
            self._objects = Objects.of(self._sorted)
        return self._objects
