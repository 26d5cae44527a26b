"""Reads that fit into a slice while others wait, and a bound for records that carry nothing."""

from __future__ import annotations

from ztunnel.loop.turns import SLICE_S
from ztunnel.transport.openssl import RECORD_PLAIN_BYTES_MAX
from ztunnel.transport.pace import (
    PIECE_RECORDS,
    READ_ALONE_S,
    READ_BYTES_LEAST,
    SILENT_BURST,
    SILENT_PER_S,
    ReadPace,
)
from ztunnel.transport.scratch import READ_BYTES_MAX
from ztunnel.transport.tls import TINY_RECORDS


def read(pace: ReadPace, record_s: float, times: int, *, crowded: bool = True) -> list[bool]:
    """Reads of a peer whose records take so long; only the read that ends one is slow."""
    waiting, pieces = 0, []
    for _ in range(times):
        waiting += pace.read_bytes
        records, waiting = divmod(waiting, RECORD_PLAIN_BYTES_MAX)
        pace.took(1e-5 + records * record_s, pace.read_bytes, crowded)
        pieces.append(pace.in_pieces)
    return pieces


def test_records_that_take_longer_than_a_slice_are_handled_in_pieces_and_stay_so() -> None:
    pace = ReadPace()
    pieces = read(pace, 20 * SLICE_S, 200)
    assert all(pieces)
    assert pace.read_bytes == READ_BYTES_LEAST
    read(pace, SLICE_S / 100, 30, crowded=False)
    assert (pace.read_bytes, pace.in_pieces) == (READ_BYTES_MAX, False)


def test_a_read_of_somebody_alone_ends_soon_enough_for_who_comes_meanwhile() -> None:
    pace = ReadPace()
    read(pace, 5 * SLICE_S, 100, crowded=False)
    assert not pace.in_pieces
    assert pace.read_bytes * 5 * SLICE_S / RECORD_PLAIN_BYTES_MAX <= 1.1 * READ_ALONE_S


def test_reads_shrink_to_what_a_slice_takes() -> None:
    pace = ReadPace()
    assert not any(read(pace, SLICE_S / 4, 50))
    assert 2 * RECORD_PLAIN_BYTES_MAX < pace.read_bytes < 5 * RECORD_PLAIN_BYTES_MAX


def test_cheap_bytes_are_read_whole_whoever_waits() -> None:
    pace = ReadPace()
    assert not any(read(pace, SLICE_S / 100, 20))
    assert pace.read_bytes == READ_BYTES_MAX


def test_silent_records_have_a_burst_and_then_a_pace() -> None:
    pace = ReadPace()
    assert pace.silent(int(SILENT_BURST), 10.0)
    assert not pace.silent(1, 10.0)
    assert pace.silent(1, 10.0 + 2 / SILENT_PER_S)
    assert not pace.silent(2, 10.0 + 2 / SILENT_PER_S)


def test_a_piece_has_more_records_than_may_be_tiny() -> None:
    """Else tiny records would be nobody's fault while others wait."""
    assert PIECE_RECORDS > TINY_RECORDS
