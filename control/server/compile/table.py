"""Resources by name, and what became of them since it was asked last. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class ChangedResources(Mapping[str, T | None]):
    """Names, and values as they are when they are asked for: a table of 50,000 is not made in one
    go. Good until the next change."""

    def __init__(self, names: Mapping[str, object], current: Mapping[str, T]) -> None:
        self._names = names
        self._current = current

    def __getitem__(self, name: str) -> T | None:
        if name not in self._names:
            raise KeyError(name)
        return self._current.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class ResourceTable(Generic[T]):
    def __init__(self) -> None:
        self.current: dict[str, T] = {}
        self._before: dict[str, T | None] = {}  # names that were put, with their values then

    def put(self, name: str, value: T | None) -> None:
        """None: it is gone."""
        known = self.current.get(name)
        if value == known:
            return
        if name not in self._before:
            self._before[name] = known
        elif value == self._before[name]:
            del self._before[name]
        if value is None:
            del self.current[name]
        else:
            self.current[name] = value

    def take_changed(self) -> Mapping[str, T | None]:
        """Those that are not as they were; None: it is gone."""
        before, self._before = self._before, {}
        return ChangedResources(before, self.current)
