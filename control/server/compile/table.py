"""Resources by name, and what became of them since it was asked last. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


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
        return {name: self.current.get(name) for name in before}
