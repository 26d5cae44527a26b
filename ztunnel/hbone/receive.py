"""Received bytes to events: finds the frames and hands each to the module for its kind.

    frame                                               taken by
    DATA: not empty, not padded, within its windows     DataFrames.plain
    DATA: empty, with END_STREAM                        DataFrames.bare_end
    HEADERS: whole, with END_HEADERS and nothing else   Receiver._whole_headers
    any frame                                           Receiver._any_frame

The first three are shortcuts for nearly everything that comes. Each looks first and declines by
returning the position that it was given; the last row is the whole protocol, and would treat those
frames in the same way.

A DATA payload is never buffered: it is handed on in the pieces in which it comes. Of every other
frame the beginning waits in `_partial` until the rest is here.
"""

from ztunnel.hbone.control_frames import HANDLERS
from ztunnel.hbone.core import Core
from ztunnel.hbone.data_frames import DataFrames, Deliver
from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.events import ConnectionFailed, Event
from ztunnel.hbone.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    FRAME_HEADER_BYTES,
    HEADERS,
    PADDED,
    PREFACE,
    SETTINGS,
    STREAM_ID_MASK,
    FrameHead,
    unpack_head,
)
from ztunnel.hbone.header_frames import HeaderFrames
from ztunnel.hbone.limits import (
    CONTROL_FRAME_BYTES_MAX,
    FRAGMENT_COST,
    FRAME_COST,
    REFILL_PER_READ,
)
from ztunnel.hbone.settings import Role

# Padding of 255 bytes, its length and a priority: what a HEADERS frame may carry beside its block.
_HEADERS_EXTRA_BYTES = 255 + 1 + 5
# A client's stream has an odd number, and the reserved bit is not part of it.
_CLIENTS_BITS = 0x8000_0001


class Receiver:
    """The receiving half of one connection."""

    __slots__ = (
        "_block_bytes_max",
        "_core",
        "_data",
        "_frame_bytes_max",
        "_headers",
        "_partial",
        "_preface",
    )

    def __init__(self, core: Core) -> None:
        self._core = core
        self._data = DataFrames(core)
        self._headers = HeaderFrames(core)
        self._frame_bytes_max = core.settings.max_frame_bytes
        self._block_bytes_max = min(core.settings.header_list_bytes, self._frame_bytes_max)
        self._preface = PREFACE if core.role is Role.SERVER else b""
        self._partial = bytearray()

    def receive(
        self, data: bytes | bytearray | memoryview, deliver: Deliver | None = None
    ) -> list[Event]:
        """Never raises for what a peer does; after ConnectionFailed it returns nothing."""
        events: list[Event] = []
        core, payload = self._core, self._data
        if core.closed:
            return events
        waited = len(self._partial)
        view = data if isinstance(data, memoryview) else memoryview(data)
        payload.deliver = deliver
        try:
            position = 0
            if self._preface:
                position = self._match_preface(view)
            if self._partial:
                position = self._complete(view, position, events)
            if payload.left or payload.skip:
                position = payload.take_payload(view, position, events)
            self._frames(view, position, events)
            if self._partial and len(self._partial) == waited + len(view):
                core.spend(FRAGMENT_COST, "fragments of frames")
            else:
                core.allowance.refill(REFILL_PER_READ)
        except ConnectionBroken as broken:
            core.write_goaway(broken.code, broken.reason.encode())
            core.close()
            self._partial.clear()
            events.append(ConnectionFailed(broken.code, broken.reason))
        payload.deliver = None  # a bound method of the tunnel: no circle outlives the read
        return events

    def _frames(self, view: memoryview, position: int, events: list[Event]) -> None:
        """Act on the frames from `position` on; the beginning of a last one that is cut waits."""
        size = len(view)
        while position + FRAME_HEADER_BYTES <= size:
            frame: FrameHead = unpack_head(view, position)
            head = frame[0]
            end = position
            if self._headers.expecting:
                pass  # only a CONTINUATION may come
            elif not head:
                end = self._data.bare_end(position, frame, events)
            elif not head & 0xFF:
                end = self._data.plain(view, position, frame, events)
            elif head & 0xFF == HEADERS:
                end = self._whole_headers(view, position, frame, events)
            if end == position:
                end = self._any_frame(view, position, frame, events)
                if end == position:
                    break
            position = end
        if self._data.held is not None:
            self._data.flush(events)
        if position < size:
            self._partial += view[position:]

    def _whole_headers(
        self, view: memoryview, position: int, frame: FrameHead, events: list[Event]
    ) -> int:
        if self._data.held is not None:
            self._data.flush(events)
        head, flags, stream_id = frame
        start = position + FRAME_HEADER_BYTES
        end = start + (head >> 8)
        if (
            flags != END_HEADERS
            or end > len(view)
            or end - start > self._block_bytes_max
            or stream_id & _CLIENTS_BITS != 1
            or not self._core.peer_ready
        ):
            return position
        self._headers.on_block(stream_id, False, bytes(view[start:end]), events)
        return end

    # -- the whole protocol ----------------------------------------------------------------------

    def _any_frame(
        self, view: memoryview, position: int, frame: FrameHead, events: list[Event]
    ) -> int:
        """Act on the frame at `position` if enough of it is here. Returns the position behind what
        has been taken, or `position`."""
        self._data.flush(events)
        end = position + self._need(frame)
        if end > len(view):
            return position
        return self._act(view, position, end, frame, events)

    def _match_preface(self, view: memoryview) -> int:
        length = min(len(self._preface), len(view))
        if view[:length] != self._preface[:length]:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "not an HTTP/2 client")
        self._preface = self._preface[length:]
        return length

    def _need(self, frame: FrameHead) -> int:
        """Bytes that must be together before this frame can be acted on, its header included."""
        head, flags, stream_id = frame
        kind, length = head & 0xFF, head >> 8
        if length > self._frame_bytes_max:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "frame larger than announced")
        if not self._core.peer_ready and (kind != SETTINGS or flags & ACK):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "first frame is not SETTINGS")
        expecting = self._headers.expecting
        if (kind == CONTINUATION) != (expecting != 0) or (
            expecting and stream_id & STREAM_ID_MASK != expecting
        ):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "header block interrupted")
        if kind == DATA:
            return FRAME_HEADER_BYTES + (1 if flags & PADDED and length else 0)
        if kind > CONTINUATION:
            return FRAME_HEADER_BYTES  # unknown: its payload is skipped as it comes
        if kind in (HEADERS, CONTINUATION):
            if length > self._core.settings.header_list_bytes + _HEADERS_EXTRA_BYTES:
                raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        elif length > CONTROL_FRAME_BYTES_MAX:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "control frame too large")
        return FRAME_HEADER_BYTES + length

    def _complete(self, view: memoryview, position: int, events: list[Event]) -> int:
        """Bring the rest of a frame whose beginning came with an earlier read."""
        partial = self._partial
        for _ in range(2):  # first the header, then what the header asks for
            if len(partial) < FRAME_HEADER_BYTES:
                need = FRAME_HEADER_BYTES
            else:
                need = self._need(unpack_head(partial))
            missing = need - len(partial)
            if missing > 0:
                partial += view[position : position + missing]
                position = min(position + missing, len(view))
            if len(partial) < need:
                return position
        frame = memoryview(bytes(partial))
        partial.clear()
        self._act(frame, 0, len(frame), unpack_head(frame), events)
        return position

    def _act(
        self, view: memoryview, position: int, end: int, frame: FrameHead, events: list[Event]
    ) -> int:
        """Act on a frame of which the bytes up to `end` are needed. Returns the position behind
        what has been taken: DATA and unknown frames go on behind `end`."""
        head, flags, stream_id = frame
        stream_id &= STREAM_ID_MASK
        kind, length = head & 0xFF, head >> 8
        if kind == DATA:
            padding = view[end - 1] + 1 if end - position > FRAME_HEADER_BYTES else 0
            if padding > length or (flags & PADDED and not length):
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "padding exceeds the frame")
            self._data.begin(flags, stream_id, length, padding, events)
            return self._data.take_payload(view, end, events)
        if kind > CONTINUATION:
            self._core.spend(FRAME_COST, "frames of unknown type")
            self._data.begin_skip(length)
            return self._data.take_payload(view, end, events)
        payload = bytes(view[position + FRAME_HEADER_BYTES : end])
        if kind == HEADERS:
            self._headers.on_headers(flags, stream_id, payload, events)
        elif kind == CONTINUATION:
            self._headers.on_continuation(flags, stream_id, payload, events)
        else:
            HANDLERS[kind](self._core, flags, stream_id, payload, events)
        return end
