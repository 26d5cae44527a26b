"""Reads that fit into a slice while others wait, and a bound for records that carry nothing."""

from __future__ import annotations

from ztunnel.loop.turns import SLICE_S
from ztunnel.transport.pace import (
    READ_BYTES_LEAST,
    READ_GROWTH,
    SILENT_BURST,
    SILENT_PER_S,
    ReadPace,
)
from ztunnel.transport.scratch import READ_BYTES_MAX


def test_reads_shrink_to_what_a_slice_takes_and_grow_when_others_are_gone() -> None:
    pace, byte_s = ReadPace(), 1e-7  # tiny frames
    for _ in range(20):
        pace.took(pace.read_bytes * byte_s, crowded=True)
    assert pace.read_bytes >= READ_BYTES_LEAST
    assert pace.read_bytes * byte_s <= READ_GROWTH * SLICE_S
    for _ in range(20):
        pace.took(pace.read_bytes * byte_s, crowded=False)
    assert pace.read_bytes == READ_BYTES_MAX


def test_cheap_bytes_are_read_whole_whoever_waits() -> None:
    pace = ReadPace()
    for _ in range(20):
        pace.took(SLICE_S / 2, crowded=True)
    assert pace.read_bytes == READ_BYTES_MAX


def test_silent_records_have_a_burst_and_then_a_pace() -> None:
    pace = ReadPace()
    assert pace.silent(int(SILENT_BURST), 10.0)
    assert not pace.silent(1, 10.0)
    assert pace.silent(1, 10.0 + 2 / SILENT_PER_S)
    assert not pace.silent(2, 10.0 + 2 / SILENT_PER_S)
