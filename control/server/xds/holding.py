"""Versions of resources that one client holds. Clients that hold the same share one table.

Nearly all hold everything, in the current version: a table of their own for each would be most of
what a node costs. So there is a table that several share and nobody changes, and beside it what
this client has other than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

_NONE: Mapping[str, str] = {}


class Holding(MutableMapping[str, str]):
    __slots__ = ("_gone", "_own", "_shared")

    def __init__(self, own: dict[str, str] | None = None) -> None:
        self._shared = _NONE
        self._own = {} if own is None else own
        self._gone: set[str] = set()  # names of the shared table that this client does not hold

    @property
    def own_count(self) -> int:
        """Entries that are kept for this client alone."""
        return len(self._own) + len(self._gone)

    def share(self, table: Mapping[str, str]) -> None:
        """Take a table in place of one's own entries. It has to say the same."""
        self._shared, self._own, self._gone = table, {}, set()

    def __getitem__(self, name: str) -> str:
        version = self.get(name)
        if version is None:
            raise KeyError(name)
        return version

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        version = self._own.get(name)
        if version is not None:
            return version
        return default if name in self._gone else self._shared.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._own or (name in self._shared and name not in self._gone)

    def __setitem__(self, name: str, version: str) -> None:
        self._gone.discard(name)
        if self._shared.get(name) == version:
            self._own.pop(name, None)
        else:
            self._own[name] = version

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._own.pop(name, None)
        if name in self._shared:
            self._gone.add(name)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        for name in self._shared:
            if name not in self._own and name not in self._gone:
                yield name

    def __len__(self) -> int:
        more = sum(name not in self._shared for name in self._own)
        return len(self._shared) - len(self._gone) + more
