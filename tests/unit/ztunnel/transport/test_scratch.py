"""Sizes of reads, and the buffers that they go through."""

import mmap

from control.kit.memory import resident_bytes
from ztunnel.transport.scratch import (
    CHUNK_BYTES_FIRST,
    CHUNK_BYTES_MAX,
    CHUNK_GROWTH,
    DECRYPTED_VIEW,
    FRAME_HEAD_BYTES,
    FROM_SOCKET_VIEW,
    PAYLOAD_VIEW,
    READ_BYTES_MAX,
    TURN_BYTES_MAX,
    buffer,
)

RECORD_BYTES = 16_384  # the most that a TLS record carries


def test_a_read_with_its_frame_header_is_a_number_of_whole_records() -> None:
    size = CHUNK_BYTES_FIRST + FRAME_HEAD_BYTES
    while size < CHUNK_BYTES_MAX:
        assert size % RECORD_BYTES == 0
        size *= CHUNK_GROWTH
    assert (CHUNK_BYTES_MAX + FRAME_HEAD_BYTES) % RECORD_BYTES == 0


def test_the_largest_read_fits_behind_its_frame_header() -> None:
    assert len(FROM_SOCKET_VIEW) == FRAME_HEAD_BYTES + READ_BYTES_MAX
    assert len(PAYLOAD_VIEW) >= CHUNK_BYTES_MAX
    PAYLOAD_VIEW[:3] = b"abc"
    assert FROM_SOCKET_VIEW[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + 3] == b"abc"


def test_one_read_fits_decrypted_with_what_an_earlier_one_left_of_a_record() -> None:
    assert len(DECRYPTED_VIEW) >= READ_BYTES_MAX + RECORD_BYTES


def test_a_turn_has_room_for_the_largest_read() -> None:
    assert TURN_BYTES_MAX >= CHUNK_BYTES_MAX


def test_a_buffer_takes_memory_once_it_is_used() -> None:
    size = 64 * 1024 * 1024
    before = resident_bytes()
    made = buffer(size)
    assert resident_bytes() - before < size // 2
    for start in range(0, size, mmap.PAGESIZE):
        made[start] = 1
    assert resident_bytes() - before > size // 2
    assert len(made) == size
