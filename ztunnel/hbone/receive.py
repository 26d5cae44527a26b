"""Bytes to events: the frame loop, DATA, and pieces of frames; other frames go to their modules.

A DATA payload is never buffered: it is handed on in the pieces in which it comes. Of every other
frame the beginning waits in `_partial` until the rest is here. DATA of an open stream without
padding, nearly everything that ever comes, is dealt with in the loop itself.

Pieces of one stream that follow each other in a read are handed on together: to `deliver` at once,
or as events. An event that waits in the list goes first, so after one there are only events: the
order is the same either way.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ztunnel.hbone.control_frames import HANDLERS
from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.events import ConnectionFailed, DataReceived, Event
from ztunnel.hbone.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    HEADERS,
    PADDED,
    PREFACE,
    SETTINGS,
    STREAM_ID_MASK,
)
from ztunnel.hbone.header_frames import HeaderFrames
from ztunnel.hbone.limits import CONTROL_FRAME_BYTES_MAX, FRAME_COST, REFILL_PER_READ
from ztunnel.hbone.settings import Role
from ztunnel.hbone.stream import Stream

if TYPE_CHECKING:
    from ztunnel.hbone.core import Core

_unpack_header: Final = FRAME_HEADER.unpack_from
# Padding of 255 bytes, its length and a priority: what a HEADERS frame may carry beside its block.
_HEADERS_EXTRA_BYTES: Final = 255 + 1 + 5
# A client's stream has an odd number, and the reserved bit is not part of it.
_CLIENTS_BITS: Final = 0x8000_0001
_NO_STREAMS: Final[dict[int, Stream]] = {}
_NOTHING: Final = memoryview(b"")

# Takes what came for a stream: the first piece, and all of them when there are several. It must not
# raise: the receiver is in the middle of a read.
Deliver = Callable[[Stream, memoryview, list[memoryview] | None], None]


class Receiver:
    __slots__ = (
        "_block_bytes_max",
        "_core",
        "_deliver",
        "_ends",
        "_frame_bytes_max",
        "_headers",
        "_held",
        "_left",
        "_partial",
        "_piece",
        "_preface",
        "_skip",
        "_stream",
    )

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._headers = HeaderFrames(core)
        self._frame_bytes_max = core.settings.max_frame_bytes
        self._block_bytes_max = min(core.settings.header_list_bytes, self._frame_bytes_max)
        self._preface = PREFACE if core.role is Role.SERVER else b""
        self._partial = bytearray()
        # The DATA frame (or unknown frame) whose payload is under way: bytes to hand on, then
        # bytes to drop, then perhaps the end of the stream.
        self._stream: Stream | None = None
        self._left = 0
        self._skip = 0
        self._ends = False
        self._deliver: Deliver | None = None  # of the read that is under way
        # What `_hand_on` found, until the loop takes it.
        self._held: Stream | None = None
        self._piece = _NOTHING

    def receive(
        self, data: bytes | bytearray | memoryview, deliver: Deliver | None = None
    ) -> list[Event]:
        """Never raises for what a peer does; after ConnectionFailed it returns nothing."""
        events: list[Event] = []
        core = self._core
        if core.closed:
            return events
        core.allowance.refill(REFILL_PER_READ)
        view = memoryview(data)
        self._deliver = deliver
        try:
            position = 0
            if self._preface:
                position = self._match_preface(view)
            if self._partial:
                position = self._complete(view, position, events)
            if self._left or self._skip:
                position = self._hand_on(view, position, events)
            self._frames(view, position, events)
        except ConnectionBroken as broken:
            core.write_goaway(broken.code, broken.reason.encode())
            core.close()
            self._partial.clear()
            events.append(ConnectionFailed(broken.code, broken.reason))
        self._deliver = None  # a bound method of the tunnel: no circle outlives it
        return events

    def _frames(self, view: memoryview, position: int, events: list[Event]) -> None:
        core, deliver = self._core, self._deliver
        held, piece = self._take_found()
        run: list[memoryview] | None = None
        size = len(view)
        whole = size - FRAME_HEADER_BYTES
        frame_bytes_max = self._frame_bytes_max
        streams = _NO_STREAMS if self._headers.expecting else core.streams
        while position <= whole:
            head, flags, stream_id = _unpack_header(view, position)
            if not head & 0xFF and flags <= END_STREAM:
                stream = streams.get(stream_id)
                length = head >> 8
                if (
                    stream is not None
                    and stream.state.receivable
                    and 0 < length <= stream.receive_window
                    and length <= core.receive_window
                    and length <= frame_bytes_max
                ):
                    stream.receive_window -= length
                    core.receive_window -= length
                    start = position + FRAME_HEADER_BYTES
                    position = start + length
                    if position > size:
                        self._stream, self._ends = stream, flags == END_STREAM
                        self._left = position - size
                        if start == size:
                            break
                        flags = 0  # its end comes with the rest
                    if stream is held:
                        if run is None:
                            run = [piece]
                        run.append(view[start:position])
                    else:
                        if held is not None:
                            if deliver is not None and not events:
                                deliver(held, piece, run)
                            else:
                                self._hand_over(held, piece, run, events)
                            run = None
                        held = stream
                        piece = view[start:position]
                    if flags:
                        stream.ending = True
                        self._hand_over(held, piece, run, events)
                        held = run = None
                        if stream.state.receivable:  # it may have been reset just now
                            core.end_remote(stream, events)
                    continue
            if held is not None:
                self._hand_over(held, piece, run, events)
                held = run = None
            if not head and flags == END_STREAM:  # empty DATA: the end of most short connections
                stream = streams.get(stream_id)
                if stream is not None and stream.state.receivable:
                    core.end_remote(stream, events)
                    position += FRAME_HEADER_BYTES
                    continue
            elif (
                head & 0xFF == HEADERS
                and flags == END_HEADERS
                and stream_id & _CLIENTS_BITS == 1
                and streams is not _NO_STREAMS
                and core.peer_ready
            ):
                length = head >> 8
                start = position + FRAME_HEADER_BYTES
                if start + length <= size and length <= self._block_bytes_max:
                    position = start + length
                    self._headers.on_block(stream_id, False, bytes(view[start:position]), events)
                    continue
            need = self._need(view, position)
            if position + need > size:
                break
            position = self._act(view, position, need, events)
            streams = _NO_STREAMS if self._headers.expecting else core.streams
            held, piece = self._take_found()
        if held is not None:
            self._hand_over(held, piece, run, events)
        if position < size:
            self._partial += view[position:]

    def _take_found(self) -> tuple[Stream | None, memoryview]:
        # On its own: where it is set to None, mypy (and code compiled by it) goes on believing so.
        held, self._held = self._held, None
        return held, self._piece

    def _hand_over(
        self,
        stream: Stream,
        piece: memoryview,
        run: list[memoryview] | None,
        events: list[Event],
    ) -> None:
        if self._deliver is not None and not events:
            self._deliver(stream, piece, run)
        elif run is None:
            events.append(DataReceived(stream, piece))
        else:
            events.extend([DataReceived(stream, each) for each in run])

    # -- the rare cases --------------------------------------------------------------------------

    def _match_preface(self, view: memoryview) -> int:
        length = min(len(self._preface), len(view))
        if view[:length] != self._preface[:length]:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "not an HTTP/2 client")
        self._preface = self._preface[length:]
        return length

    def _need(self, view: "memoryview | bytearray", position: int) -> int:
        """How many bytes must be together before this frame can be acted on."""
        head, flags, stream_id = _unpack_header(view, position)
        kind = head & 0xFF
        length: int = head >> 8
        if length > self._frame_bytes_max:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "frame larger than announced")
        if not self._core.peer_ready and (kind != SETTINGS or flags & 1):
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
                need = self._need(partial, 0)
            missing = need - len(partial)
            if missing > 0:
                partial += view[position : position + missing]
                position = min(position + missing, len(view))
            if len(partial) < need:
                return position
        frame = bytes(partial)
        partial.clear()
        self._act(memoryview(frame), 0, len(frame), events)
        return position

    def _act(self, view: memoryview, position: int, need: int, events: list[Event]) -> int:
        """Act on the frame of which `need` bytes are at `position`; the position behind it."""
        head, flags, stream_id = _unpack_header(view, position)
        stream_id &= STREAM_ID_MASK
        kind, length = head & 0xFF, head >> 8
        end = position + need
        if kind == DATA or kind > CONTINUATION:
            if kind == DATA:
                padding = view[end - 1] + 1 if need > FRAME_HEADER_BYTES else 0
                if padding > length or (flags & PADDED and not length):
                    raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "padding exceeds the frame")
                self._begin_data(flags, stream_id, length, padding, events)
            else:
                self._core.spend(FRAME_COST, "frames of unknown type")
                self._stream, self._skip, self._ends = None, length, False
            return self._hand_on(view, end, events)
        payload = bytes(view[position + FRAME_HEADER_BYTES : end])
        if kind == HEADERS:
            self._headers.on_headers(flags, stream_id, payload, events)
        elif kind == CONTINUATION:
            self._headers.on_continuation(flags, stream_id, payload, events)
        else:
            HANDLERS[kind](self._core, flags, stream_id, payload, events)
        return end

    def _begin_data(
        self, flags: int, stream_id: int, length: int, padding: int, events: list[Event]
    ) -> None:
        """Account for a DATA frame that the loop did not take; `padding` includes its length."""
        core = self._core
        if core.is_idle(stream_id):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream")
        if length > core.receive_window:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "connection window overrun")
        core.receive_window -= length
        self._stream, self._left, self._ends = None, 0, False
        self._skip = length - (1 if padding else 0)  # the length byte has been read
        stream = core.streams.get(stream_id)
        if stream is None or not self._takes(stream, length, events):
            core.forgive(length)
            core.spend(FRAME_COST, "DATA frames on closed streams")
            if stream is None and not core.was_reset(stream_id):
                core.refuse(stream_id, ErrorCode.STREAM_CLOSED)
            return
        if length == padding and not flags & END_STREAM:
            core.spend(FRAME_COST, "empty DATA frames")
        self._stream, self._ends = stream, bool(flags & END_STREAM)
        self._left = length - padding
        self._skip -= self._left
        stream.receive_window -= length
        if padding:
            stream.credit += padding
            core.reopen_stream(stream)
            core.forgive(padding)

    def _takes(self, stream: Stream, length: int, events: list[Event]) -> bool:
        if stream.state.remote_ended:
            code = ErrorCode.STREAM_CLOSED
        elif not stream.state.receivable:
            code = ErrorCode.PROTOCOL_ERROR  # before the response
        elif length and length > stream.receive_window:
            code = ErrorCode.FLOW_CONTROL_ERROR
        else:
            return True
        self._core.break_stream(stream, code, events)
        return False

    def _hand_on(self, view: memoryview, position: int, events: list[Event]) -> int:
        """Pass on what there is of the payload under way; drop its padding; then its end."""
        stream = self._stream
        size = len(view)
        if self._left:
            end = min(position + self._left, size)
            self._left -= end - position
            # The engine may have reset it between two pieces: its bytes are credited already.
            if stream is not None and stream.state.receivable and end > position:
                self._held, self._piece = stream, view[position:end]
            position = end
        if self._skip and not self._left:
            end = min(position + self._skip, size)
            self._skip -= end - position
            position = end
        if not self._left and not self._skip:
            if self._ends and self._held is not None:
                self._hand_over(self._held, self._piece, None, events)
                self._held = None
            if self._ends and stream is not None and stream.state.receivable:
                self._core.end_remote(stream, events)
            self._stream = None
            self._ends = False
        return position
