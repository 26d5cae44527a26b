"""Maps: the kernel's own, and the one in memory that stands in for it, do the same."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

from agent.datapath import bpfsys
from agent.datapath.errors import MapFull
from agent.datapath.maps import Map
from bpf.layout import MapType
from tests.support.kernel.memory_map import MemoryMap
from tests.support.kernel.netns import need_root

KEY, VALUE, ENTRIES = 4, 8, 16


@pytest.fixture(params=["kernel", "memory"])
def table(request: pytest.FixtureRequest) -> Iterator[Map | MemoryMap]:
    if request.param == "memory":
        yield MemoryMap(KEY, VALUE, ENTRIES)
        return
    need_root()
    with Map.create(MapType.HASH, KEY, VALUE, ENTRIES, name="test") as made:
        yield made


def key(number: int) -> bytes:
    return struct.pack("=I", number)


def value(number: int) -> bytes:
    return struct.pack("=Q", number)


def test_entries_come_and_go(table: Map | MemoryMap) -> None:
    assert table.lookup(key(1)) is None
    table.update(key(1), value(10))
    table.update(key(1), value(11))
    table.update(key(2), value(20))
    assert table.lookup(key(1)) == value(11)
    assert sorted(table) == [key(1), key(2)]
    assert table.count() == 2
    assert table.delete(key(1))
    assert not table.delete(key(1))
    assert list(table) == [key(2)]


def test_many_entries_in_one_loop(table: Map | MemoryMap) -> None:
    table.fill((key(number), value(number * 10)) for number in (1, 2, 1))
    assert (table.lookup(key(1)), table.lookup(key(2))) == (value(10), value(20))
    assert table.absent(key(number) for number in range(5)) == 3
    table.fill((key(number), value(1)) for number in range(ENTRIES))
    with pytest.raises(MapFull):
        table.fill([(key(ENTRIES), value(1))])
    assert table.absent([key(ENTRIES)]) == 1


@pytest.mark.parametrize("size", [0, 1, 1024, 2500])
def test_all_entries_are_read_many_at_a_time(size: int) -> None:
    need_root()
    with Map.create(MapType.HASH, KEY, VALUE, 4096, name="test") as table:
        table.fill((key(number), value(number)) for number in range(size))
        assert dict(table.items()) == {key(n): value(n) for n in range(size)}
        assert table.count() == size


def test_a_kernel_without_batches_is_asked_for_one_by_one(
    table: Map | MemoryMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = bpfsys.attempt

    def attempt(command: int, attributes: bytes | bytearray) -> bpfsys.BpfReply:
        if command == bpfsys.MAP_LOOKUP_BATCH:
            return bpfsys.BpfReply(-1, errno.EINVAL, bytes(attributes))
        return answer(command, attributes)

    monkeypatch.setattr(bpfsys, "attempt", attempt)
    table.fill((key(number), value(number)) for number in range(5))
    assert dict(table.items()) == {key(number): value(number) for number in range(5)}
    assert table.count() == 5


def test_an_entry_may_go_while_keys_are_read(table: Map | MemoryMap) -> None:
    for number in range(8):
        table.update(key(number), value(number))
    for each in list(table):
        table.delete(each)
    assert table.count() == 0


def test_a_full_map_refuses(table: Map | MemoryMap) -> None:
    for number in range(ENTRIES):
        table.update(key(number), value(number))
    with pytest.raises(MapFull):
        table.update(key(ENTRIES), value(0))
    assert table.count() == ENTRIES
    table.update(key(0), value(99))  # an entry that is there may change
    assert table.lookup(key(0)) == value(99)
