"""A kernel map in memory. It passes the real one's test (tests/netns/capture/test_maps.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.datapath.errors import MapFull


class MemoryMap:
    """As `agent.datapath.maps.Map`, for a hash or an array."""

    def __init__(
        self, key_bytes: int, value_bytes: int, max_entries: int = 1024, fd: int = -1
    ) -> None:
        self.fd = fd
        self.key_bytes, self.value_bytes, self.max_entries = key_bytes, value_bytes, max_entries
        self._entries: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._entries))

    def __enter__(self) -> MemoryMap:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def lookup(self, key: bytes, value_bytes: int | None = None) -> bytes | None:
        assert len(key) == self.key_bytes
        return self._entries.get(key)

    def update(self, key: bytes, value: bytes) -> None:
        assert len(key) == self.key_bytes
        assert len(value) == self.value_bytes
        if key not in self._entries and len(self._entries) == self.max_entries:
            raise MapFull("map update", 7)
        self._entries[key] = value

    def fill(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in entries:
            self.update(key, value)

    def absent(self, entries: Iterable[bytes]) -> int:
        return sum(self.lookup(key) is None for key in entries)

    def delete(self, key: bytes) -> bool:
        return self._entries.pop(key, None) is not None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(list(self._entries.items()))

    def count(self) -> int:
        return len(self._entries)
