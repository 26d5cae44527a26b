"""Layout of HTTP/2 frames: numbers, and packing of the small ones. No state, no policy."""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES: Final = 9
# Length (24 bits) and type (8 bits) as one number, flags, stream id: a single unpack.
FRAME_HEADER: Final = Struct(">IBI")
FrameHead = tuple[int, int, int]  # a frame header as FRAME_HEADER unpacks it
unpack_head: Final = FRAME_HEADER.unpack_from
STREAM_ID_MASK: Final = 0x7FFF_FFFF
STREAM_ID_MAX: Final = 0x7FFF_FFFF
SERVER_STREAM_ID_MAX: Final = STREAM_ID_MAX - 1  # servers count in even numbers
WINDOW_MAX: Final = 0x7FFF_FFFF
WINDOW_DEFAULT: Final = 65_535
FRAME_BYTES_DEFAULT: Final = 16_384
FRAME_BYTES_MAX: Final = 0xFF_FFFF
PING_BYTES: Final = 8
HEADER_TABLE_DEFAULT: Final = 4_096

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

_UINT32: Final = Struct(">I")
_SETTING: Final = Struct(">HI")
_GOAWAY: Final = Struct(">II")
_SMALL: Final = Struct(">IBII")  # a frame with one 32-bit number: RST_STREAM, WINDOW_UPDATE


class Setting(IntEnum):
    """Identifiers of RFC 9113 section 6.5.2, and RFC 8441's."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8


def pack_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame; the caller keeps to the peer's frame size."""
    return FRAME_HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def pack_window_update(stream_id: int, increment: int) -> bytes:
    return _SMALL.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def pack_rst_stream(stream_id: int, code: int) -> bytes:
    return _SMALL.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def pack_settings(settings: Iterable[tuple[int, int]]) -> bytes:
    return pack_frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in settings))


def pack_goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    return pack_frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, code) + debug)


def pack_header_block(stream_id: int, flags: int, block: bytes, frame_bytes_max: int) -> bytes:
    """HEADERS, and as many CONTINUATION frames as the peer's frame size demands."""
    if len(block) <= frame_bytes_max:
        return pack_frame(HEADERS, flags | END_HEADERS, stream_id, block)
    out = bytearray()
    kind = HEADERS
    for start in range(0, len(block), frame_bytes_max):
        piece = block[start : start + frame_bytes_max]
        last = END_HEADERS if start + frame_bytes_max >= len(block) else 0
        out += pack_frame(kind, flags | last, stream_id, piece)
        kind, flags = CONTINUATION, 0
    return bytes(out)


def parse_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Pairs of identifier and value. The length of `payload` must be a multiple of six."""
    return _SETTING.iter_unpack(payload)


def parse_uint32(payload: bytes) -> int:
    number: int = _UINT32.unpack(payload)[0]
    return number


def depends_on(priority: bytes, start: int = 0) -> int:
    """The stream that a priority, long obsolete, names as its parent."""
    number: int = _UINT32.unpack_from(priority, start)[0]
    return number & STREAM_ID_MASK


def parse_goaway(payload: bytes) -> tuple[int, int]:
    """Last stream id and error code; the debug text behind them is dropped."""
    last_stream_id, code = _GOAWAY.unpack_from(payload)
    return last_stream_id & STREAM_ID_MASK, code
