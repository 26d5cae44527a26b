"""The ring's reading end, on a plain file that is laid out as the kernel lays out its ring."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from agent.datapath.maps import Map
from agent.datapath.ring import Ring, record_bytes

SIZE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Writer:
    """The kernel's side: reserve a record, fill it, and map it twice."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * mmap.PAGESIZE + 2 * SIZE)
        self.position = 0

    def _put(self, offset: int, data: bytes) -> None:
        for copy in (offset % SIZE - SIZE, offset % SIZE, offset % SIZE + SIZE):
            for index, byte in enumerate(data):
                if 0 <= copy + index < 2 * SIZE:
                    os.pwrite(self.fd, bytes([byte]), 2 * mmap.PAGESIZE + copy + index)

    def write(self, payload: bytes, flags: int = 0) -> None:
        self._put(self.position, struct.pack("=II", len(payload) | flags, 0) + payload)
        self.position += record_bytes(len(payload))
        os.pwrite(self.fd, struct.pack("=Q", self.position), mmap.PAGESIZE)

    def finish(self, offset: int, payload: bytes) -> None:
        self._put(offset, struct.pack("=II", len(payload), 0) + payload)


@pytest.fixture
def writer() -> Iterator[Writer]:
    made = Writer()
    yield made
    os.close(made.fd)


def ring_on(writer: Writer) -> Ring:
    return Ring(cast(Map, SimpleNamespace(fd=writer.fd, max_entries=SIZE)))


def test_records_come_in_order_and_once(writer: Writer) -> None:
    ring = ring_on(writer)
    assert ring.read(10) == []
    writer.write(b"one")
    writer.write(b"two, longer")
    assert ring.unread_bytes() == 16 + 24
    assert ring.read(10) == [b"one", b"two, longer"]
    assert (ring.read(10), ring.unread_bytes()) == ([], 0)


def test_a_read_is_bounded_and_the_next_reader_goes_on(writer: Writer) -> None:
    for number in range(5):
        writer.write(b"%d" % number)
    assert ring_on(writer).read(2) == [b"0", b"1"]
    assert ring_on(writer).read(9) == [b"2", b"3", b"4"]


def test_a_record_under_way_stops_the_reader_and_a_discarded_one_does_not(writer: Writer) -> None:
    ring = ring_on(writer)
    writer.write(b"thrown away", DISCARDED)
    writer.write(b"later", BUSY)
    writer.write(b"after")
    assert ring.read(10) == []
    writer.finish(record_bytes(11), b"later")
    assert ring.read(10) == [b"later", b"after"]


def test_records_go_on_over_the_end_of_the_ring(writer: Writer) -> None:
    ring = ring_on(writer)
    for number in range(400):
        payload = b"%d" % number * 10
        writer.write(payload)
        assert ring.read(1) == [payload]
    assert writer.position > 2 * SIZE
