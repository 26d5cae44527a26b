"""Maps of any type, by raw bpf(2): keys and values as bytes; knows no map by name."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from agent.datapath import bpfsys
from agent.datapath.bpfsys import KernelObject, buffer

_SK_STORAGE = 24  # the type of socket storage
_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC, demanded of socket storage
# Entries counted with one call: 0.5 MiB of our widest values, and 32 calls for the largest map.
_BATCH_ENTRIES = 1024
_BATCH_COUNT_AT = 32  # in the attributes of a batch


def _socket_storage_types(value_bytes: int) -> bytes:
    """The smallest BTF that socket storage demands: an int key, a struct of n bytes as value."""
    strings = b"\0int\0byte\0value\0bytes\0"
    integer, byte, value, member = 1, 5, 10, 16  # offsets into `strings`
    types = struct.pack("<IIII", integer, 1 << 24, 4, 1 << 24 | 32)  # 1: signed, 32 bits
    types += struct.pack("<IIII", byte, 1 << 24, 1, 8)  # 2: unsigned, 8 bits
    types += struct.pack("<IIIIII", 0, 3 << 24, 0, 2, 1, value_bytes)  # 3: array of type 2
    types += struct.pack("<IIIIII", value, 4 << 24 | 1, value_bytes, member, 3, 0)  # 4: struct
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


def _load_types(blob: bytes) -> int:
    data = buffer(blob)
    attributes = struct.pack("<QQIII", ctypes.addressof(data), 0, len(blob), 0, 0)
    what = "load the type description of socket storage"
    return bpfsys.call(bpfsys.BTF_LOAD, attributes, what).result


class Map(KernelObject):
    """A map; keys and values are bytes of the right length."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.type, self.id, self.key_bytes, self.value_bytes, self.max_entries = struct.unpack(
            "<IIIII", bpfsys.object_info(fd, 20)
        )

    @classmethod
    def create(
        cls, map_type: int, key_bytes: int, value_bytes: int, max_entries: int, *, name: str
    ) -> Self:
        flags, types_fd, key_type, value_type = 0, 0, 0, 0
        if map_type == _SK_STORAGE:
            flags, types_fd = _NO_PREALLOC, _load_types(_socket_storage_types(value_bytes))
            key_type, value_type = 1, 4
        attributes = struct.pack("<IIIII", map_type, key_bytes, value_bytes, max_entries, flags)
        attributes += struct.pack("<II16s", 0, 0, bpfsys.object_name(name))
        attributes += struct.pack("<IIII", 0, types_fd, key_type, value_type)
        try:
            return cls(bpfsys.call(bpfsys.MAP_CREATE, attributes, f"create map {name}").result)
        finally:
            if types_fd:
                os.close(types_fd)

    def lookup(self, key: bytes, value_bytes: int | None = None) -> bytes | None:
        """The value, or None. `value_bytes` differs from the map's own for per-CPU maps only."""
        size = self.value_bytes if value_bytes is None else value_bytes
        keys, values = self._key(key), buffer(bytes(size))
        pointers = (ctypes.addressof(keys), ctypes.addressof(values))
        attributes = struct.pack("<IxxxxQQQ", self.fd, *pointers, 0)
        reply = bpfsys.find(bpfsys.MAP_LOOKUP, attributes, "map lookup")
        return None if reply is None else values.raw[:size]

    def update(self, key: bytes, value: bytes) -> None:
        assert len(value) == self.value_bytes, (len(value), self.value_bytes)
        keys, values = self._key(key), buffer(value)
        pointers = (ctypes.addressof(keys), ctypes.addressof(values))
        attributes = struct.pack("<IxxxxQQQ", self.fd, *pointers, 0)
        bpfsys.call(bpfsys.MAP_UPDATE, attributes, "map update")

    def fill(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Many updates, in their order."""
        keys, values, attributes = self._places()
        key_at, value_at = memoryview(keys).cast("B"), memoryview(values).cast("B")
        for key, value in entries:
            assert (len(key), len(value)) == (self.key_bytes, self.value_bytes)
            key_at[: len(key)] = key
            value_at[: len(value)] = value
            if bpfsys.repeat(bpfsys.MAP_UPDATE, attributes):
                bpfsys.call(bpfsys.MAP_UPDATE, attributes.raw, "map update")

    def absent(self, entries: Iterable[bytes]) -> int:
        """Number of these keys that have no value."""
        keys, _values, attributes = self._places()
        count = 0
        for key in entries:
            assert len(key) == self.key_bytes
            ctypes.memmove(keys, key, len(key))
            if bpfsys.repeat(bpfsys.MAP_LOOKUP, attributes):
                count += bpfsys.find(bpfsys.MAP_LOOKUP, attributes.raw, "map lookup") is None
        return count

    def _places(self) -> tuple[ctypes.Array[ctypes.c_char], ...]:
        """Memory for a key and for a value, and the attributes that name both."""
        keys, values = buffer(bytes(self.key_bytes)), buffer(bytes(self.value_bytes))
        pointers = (ctypes.addressof(keys), ctypes.addressof(values))
        return keys, values, buffer(struct.pack("<IxxxxQQQ", self.fd, *pointers, 0))

    def delete(self, key: bytes) -> bool:
        """False: it was not there."""
        keys = self._key(key)
        attributes = struct.pack("<IxxxxQ", self.fd, ctypes.addressof(keys))
        return bpfsys.find(bpfsys.MAP_DELETE, attributes, "map delete") is not None

    def _key(self, key: bytes) -> ctypes.Array[ctypes.c_char]:
        assert len(key) == self.key_bytes, (len(key), self.key_bytes)
        return buffer(key)

    def __iter__(self) -> Iterator[bytes]:
        """Its keys, at most `max_entries`, so that a map which changes meanwhile cannot hold us."""
        following = buffer(bytes(self.key_bytes))
        previous = 0
        current = buffer(bytes(self.key_bytes))
        for _ in range(self.max_entries):
            pointers = (previous, ctypes.addressof(following))
            attributes = struct.pack("<IxxxxQQQ", self.fd, *pointers, 0)
            if bpfsys.find(bpfsys.MAP_NEXT_KEY, attributes, "map keys") is None:
                return
            key = following.raw[: self.key_bytes]
            yield key
            ctypes.memmove(current, key, self.key_bytes)
            previous = ctypes.addressof(current)

    def count(self) -> int:
        """Entries of a hash map, many with each call: one key at a time costs 4 µs each."""
        found = [size for size, _, _ in self._batches()]
        return sum(1 for _ in self) if None in found else sum(size or 0 for size in found)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Entries of a hash map, many with each call; one may come twice."""
        key_bytes, value_bytes = self.key_bytes, self.value_bytes
        for size, keys, values in self._batches():
            if size is None:
                yield from self._one_by_one()
                return
            for at in range(size):
                key = keys[at * key_bytes : (at + 1) * key_bytes]
                yield bytes(key), bytes(values[at * value_bytes : (at + 1) * value_bytes])

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        for key in list(self):
            value = self.lookup(key)
            if value is not None:  # else it went meanwhile
                yield key, value

    def _batches(self) -> Iterator[tuple[int | None, memoryview, memoryview]]:
        """(entries, keys, values) of each call, until the next one; None at last: a kernel without
        batches for this type of map, or that failed half way."""
        keys = buffer(bytes(self.key_bytes * _BATCH_ENTRIES))
        values = buffer(bytes(self.value_bytes * _BATCH_ENTRIES))
        views = memoryview(keys).cast("B"), memoryview(values).cast("B")
        places = (buffer(bytes(8)), buffer(bytes(8)))  # a call begins where the last one ended
        before = 0
        # Twice the entries: a map that changes meanwhile cannot hold us.
        for turn in range(2 + 2 * self.max_entries // _BATCH_ENTRIES):
            after = ctypes.addressof(places[turn % 2])
            pointers = (before, after, ctypes.addressof(keys), ctypes.addressof(values))
            attributes = struct.pack("<QQQQIIQQ", *pointers, _BATCH_ENTRIES, self.fd, 0, 0)
            reply = bpfsys.attempt(bpfsys.MAP_LOOKUP_BATCH, attributes)
            if reply.number not in (0, errno.ENOENT):
                yield None, *views
                return
            size = struct.unpack_from("<I", reply.attributes, _BATCH_COUNT_AT)[0]
            yield size, *views
            if reply.number:
                return  # the end
            before = after


def cpu_count_possible(text: str | None = None) -> int:
    """Number of slots of a per-CPU value: one for each *possible* CPU ("0-3,8-11")."""
    if text is None:
        text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    return int(text.strip().split(",")[-1].split("-")[-1]) + 1
