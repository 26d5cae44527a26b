"""Sizes of the reads of a turn, and their buffers, which all connections of the worker share.

A worker is one thread, and no view into them outlives the call that filled it. So one set serves
any number of connections, and memory does not grow with them.
"""

import mmap
from typing import Final

# Largest read. A larger one saves no time (measured: 512 KiB takes 10 % less than 256 KiB, and
# 1 MiB as much).
READ_BYTES_MAX: Final = 512 * 1024
# A handshake flight with a chain of several certificates fits; larger ones take another round.
FLIGHT_BYTES: Final = 16_384
FRAME_HEAD_BYTES: Final = 9
# A first read takes any small message whole; a transfer that fills its reads gets larger ones. Each
# size, with the frame's header, is a number of whole TLS records.
CHUNK_BYTES_FIRST: Final = 16 * 1024 - FRAME_HEAD_BYTES
CHUNK_BYTES_MAX: Final = READ_BYTES_MAX - FRAME_HEAD_BYTES
CHUNK_GROWTH: Final = 4
# One connection's share of a turn in each direction: the others wait for at most this many bytes.
TURN_BYTES_MAX: Final = CHUNK_BYTES_MAX


def buffer(size: int) -> memoryview:
    """Zeros. Each page takes memory once it is used; a bytearray's do at once."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


# Bytes from an app, behind room for a frame header; also encrypted bytes on their way into TLS.
FROM_SOCKET_VIEW: Final = buffer(FRAME_HEAD_BYTES + READ_BYTES_MAX)
PAYLOAD_VIEW: Final = FROM_SOCKET_VIEW[FRAME_HEAD_BYTES:]

# Decrypted bytes: all of one read, and the part of a record that an earlier read left.
DECRYPTED_VIEW: Final = buffer(READ_BYTES_MAX + 2 * 16_384)


def grown(chunk_bytes: int) -> int:
    """The size of the next read from an app that fills its reads of `chunk_bytes`."""
    size = (chunk_bytes + FRAME_HEAD_BYTES) * CHUNK_GROWTH - FRAME_HEAD_BYTES
    return min(size, CHUNK_BYTES_MAX)
