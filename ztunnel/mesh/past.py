"""Values from before an update that may be half here, by name. No I/O.

The mesh is *settled* when its state is one that the control plane has had. From the first change
after that until the mesh is settled again, each name's earlier value is kept, so that policy can
be asked as it was. Nobody may say when an update is whole, as with a foreign control plane. Time
has to do then, and changes can be so frequent that it is never quiet: so they are kept in two
spans, and the older one may go while the newer one grows.

A span holds at most one value for each name that there was when it began, or is now.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Past(Generic[_Value]):
    def __init__(self) -> None:
        self._older: dict[str, _Value | None] = {}
        self._newer: dict[str, _Value | None] = {}

    def __len__(self) -> int:
        return len(self._older) + len(self._newer)

    def note(self, name: str, before: _Value | None) -> None:
        """Keep the value from before a change; None if there was none."""
        self._newer.setdefault(name, before)

    def drop_trace(self, name: str) -> None:
        """Forget a name that came and went within this span: it was nothing, and is nothing."""
        if name in self._newer and self._newer[name] is None:
            del self._newer[name]

    def was(self, name: str, now: _Value | None) -> _Value | None:
        """Value at the beginning of the older span; `now` if it has not changed since."""
        if name in self._older:
            return self._older[name]
        return self._newer.get(name, now)

    def names(self) -> Iterator[str]:
        yield from self._older
        yield from (name for name in self._newer if name not in self._older)

    def move_on(self) -> None:
        """Forget the older span; the newer one takes its place."""
        self._older, self._newer = self._newer, {}

    def settle(self) -> None:
        self._older, self._newer = {}, {}
