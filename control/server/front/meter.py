"""Reads along on one HTTP/2 connection: how many bytes of unfinished messages, and at what cost.

gRPC's core reads a message whole before we see it, and has one limit for all methods. So what
passes by is metered here, from frame heads (RFC 9113, 4.1) and the five bytes before each gRPC
message; header blocks are not looked into. Pure: bytes in, figures out; nothing is kept of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from control.kit.errors import PeerError
from control.server.callers.budget import KIB, MIB
from control.server.callers.refusals import CallRefusal

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
DATA, HEADERS, RST_STREAM = 0, 1, 3
END_STREAM, PADDED = 0x1, 0x8
PREFIX_BYTES = 5  # before each gRPC message: compressed or not, length

# A returning client lists everything it holds: 100,000 names with versions are some 8 MiB.
REQUEST_BYTES_MAX = 16 * MIB
LARGE_BYTES = 64 * KIB  # a longer message needs a share of RECEIVING
# Streams of one connection. A client has eight certificate requests open, a report and two streams;
# more wait on its side.
STREAMS_MAX = 32

# Prices in bytes, by what each costs in time: a message some 0.15 ms, a frame a few microseconds
# here and in gRPC.
MESSAGE_COST, FRAME_COST = 16 * KIB, KIB


class Misbehaved(PeerError):
    """This connection cannot go on."""

    reason = "misbehaved"

    def __init__(self, why: CallRefusal) -> None:
        super().__init__(why.word)
        self.why = why


@dataclass(slots=True)
class _Stream:
    """The message that is passing on one stream."""

    prefix: bytearray = field(default_factory=bytearray)
    left: int = 0
    large: int = 0


class Frames:
    """Splits one direction into frames. `begin(kind, flags, stream)` is called for each head,
    `data(piece)` for each piece of a DATA frame without its padding, `end(kind, flags, stream)` at
    the end of each frame."""

    def __init__(
        self,
        begin: Callable[[int, int, int], None],
        data: Callable[[int, memoryview], None],
        end: Callable[[int, int, int], None],
    ) -> None:
        self._on_begin, self._on_data, self._on_end = begin, data, end
        self._head = bytearray()
        self._kind = self._flags = self._stream = 0
        self._left = 0  # bytes of the payload to come
        self._padding = 0  # bytes at its end; unknown until the first byte of a padded frame
        self._padding_unknown = False

    def feed(self, view: memoryview) -> None:
        at, end = 0, len(view)
        while at < end:
            if len(self._head) < HEAD_BYTES:
                step = min(HEAD_BYTES - len(self._head), end - at)
                self._head += view[at : at + step]
                if len(self._head) == HEAD_BYTES:
                    self._begin()
            elif self._padding_unknown:
                step = 1
                self._padding, self._padding_unknown = view[at], False
                self._left -= 1
            else:
                step = min(self._left, end - at)
                data = min(step, self._left - self._padding)
                if self._kind == DATA and data > 0:
                    self._on_data(self._stream, view[at : at + data])
                self._left -= step
            at += step
            if len(self._head) == HEAD_BYTES and self._left == 0:
                self._head.clear()
                self._on_end(self._kind, self._flags, self._stream)

    def _begin(self) -> None:
        high, low, self._kind, self._flags, stream = struct.unpack(">BHBBI", self._head)
        self._stream = stream & 0x7FFFFFFF
        self._left = high << 16 | low
        self._padding = 0
        self._padding_unknown = self._kind == DATA and bool(self._flags & PADDED) and self._left > 0
        self._on_begin(self._kind, self._flags, self._stream)


class Meter:
    """`unfinished`: bytes that large messages on this connection announced and did not end.
    `calls`: how many were opened so far."""

    def __init__(self) -> None:
        self.unfinished = 0
        self.calls = 0
        self._cost = 0
        self._preface = 0
        self._last = 0
        self._streams: dict[int, _Stream] = {}
        self._in = Frames(self._begin, self._message, self._end)
        self._out = Frames(_nothing, _no_data, self._ended_by_us)

    def received(self, view: memoryview) -> int:
        """Take note of what the client sends; its cost. Raises Misbehaved."""
        if self._preface < len(PREFACE):
            count = min(len(PREFACE) - self._preface, len(view))
            if view[:count] != PREFACE[self._preface : self._preface + count]:
                raise Misbehaved(CallRefusal.PREFACE)
            self._preface += count
            view = view[count:]
        self._cost = len(view)
        self._in.feed(view)
        return self._cost

    def sent(self, view: memoryview) -> None:
        """Take note of what gRPC answers: the streams that it ends."""
        self._out.feed(view)

    def _begin(self, kind: int, flags: int, stream: int) -> None:
        self._cost += FRAME_COST
        if kind == HEADERS and stream > self._last:  # a later one of the stream has its trailers
            self._last = stream
            self.calls += 1
            # gRPC refuses streams over its limit; a client that does not know the limit yet may
            # open some. Its refusals take them out of here.
            if len(self._streams) >= 4 * STREAMS_MAX:
                raise Misbehaved(CallRefusal.HTTP2_STREAMS_MAX)
            self._streams[stream] = _Stream()

    def _end(self, kind: int, flags: int, stream: int) -> None:
        ends = kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM)
        if ends:
            self._drop(stream)

    def _ended_by_us(self, kind: int, flags: int, stream: int) -> None:
        self._end(kind, flags, stream)

    def _drop(self, stream: int) -> None:
        gone = self._streams.pop(stream, None)
        if gone is not None:
            self.unfinished -= gone.large

    def _message(self, stream: int, piece: memoryview) -> None:
        state = self._streams.get(stream)
        while state is not None and len(piece):
            if state.left:
                count = min(state.left, len(piece))
                state.left -= count
                if state.left == 0:
                    self.unfinished -= state.large
                    state.large = 0
            else:
                count = min(PREFIX_BYTES - len(state.prefix), len(piece))
                state.prefix += piece[:count]
                if len(state.prefix) == PREFIX_BYTES:
                    self._announced(state)
            piece = piece[count:]

    def _announced(self, state: _Stream) -> None:
        compressed, state.left = struct.unpack(">BI", state.prefix)
        state.prefix.clear()
        self._cost += MESSAGE_COST
        if compressed:  # a kilobyte could become a gigabyte, and no client of ours does it
            raise Misbehaved(CallRefusal.COMPRESSED)
        if state.left > LARGE_BYTES:
            state.large = min(state.left, REQUEST_BYTES_MAX)
            self.unfinished += state.large
            if self.unfinished > REQUEST_BYTES_MAX:  # several at once, on streams beside each other
                raise Misbehaved(CallRefusal.LARGE_MESSAGES)


def _nothing(kind: int, flags: int, stream: int) -> None:
    pass


def _no_data(stream: int, piece: memoryview) -> None:
    pass
