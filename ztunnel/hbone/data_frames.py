"""DATA frames: accounts for them and hands their payload on, piece by piece; buffers nothing.

Pieces of one stream that follow each other in a read are handed over together, as a run: to the
read's `deliver` at once, or as events. An event that already waits in the list goes first, so from
the first event of a read on everything is an event. The order is the same either way.

Until the next frame is seen a run stays open: locally in `plain`, or as the `held` piece when the
payload came by `take_payload`. Whoever acts on another frame flushes it first.
"""

from collections.abc import Callable
from typing import Final

from ztunnel.hbone.core import Core
from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.events import DataReceived, Event
from ztunnel.hbone.frames import END_STREAM, FRAME_HEADER_BYTES, FrameHead, unpack_head
from ztunnel.hbone.limits import FRAME_COST, WORK_BYTES_PER_CREDIT
from ztunnel.hbone.stream import Stream

# Takes the payload of a stream: the first piece, and all of them if there are several. It must not
# raise: the receiver is in the middle of a read.
Deliver = Callable[[Stream, memoryview, list[memoryview] | None], None]

_NOTHING: Final = memoryview(b"")


class DataFrames:
    """The receiver's part for DATA. At most one frame is under way: bytes `left` to hand on, then
    bytes to `skip`, then perhaps the end of its stream."""

    __slots__ = (
        "_core",
        "_ends",
        "_frame_bytes_max",
        "_piece",
        "_stream",
        "deliver",
        "held",
        "left",
        "skip",
    )

    def __init__(self, core: Core) -> None:
        self._core = core
        self._frame_bytes_max = core.settings.max_frame_bytes
        self.deliver: Deliver | None = None  # the current read's
        self._stream: Stream | None = None  # None: nobody wants the payload
        self.left = 0
        self.skip = 0
        self._ends = False
        self.held: Stream | None = None
        self._piece = _NOTHING

    # -- shortcuts -------------------------------------------------------------------------------

    def plain(self, view: memoryview, position: int, frame: FrameHead, events: list[Event]) -> int:
        """Take DATA frames as long as they are plain: not empty, not padded, of a stream that may
        receive, within its windows. Returns the position behind the last of them."""
        core, streams, deliver = self._core, self._core.streams, self.deliver
        held, piece = self.held, self._piece
        self.held = None
        run: list[memoryview] | None = None
        size = len(view)
        head, flags, stream_id = frame
        while True:
            stream = streams.get(stream_id)
            length = head >> 8
            if (
                stream is None
                or not stream.state.receivable
                or not 0 < length <= stream.receive_window
                or length > core.receive_window
                or length > self._frame_bytes_max
                or flags > END_STREAM
            ):
                break
            stream.receive_window -= length
            core.receive_window -= length
            start = position + FRAME_HEADER_BYTES
            position = start + length
            if position > size:  # the rest, and the end, come with the next read
                self._stream, self.left, self._ends = stream, position - size, flags != 0
                position = size
                if start == size:
                    break
                flags = 0
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
                self._hand_over_last(stream, piece, run, events)
                held = run = None
            if position + FRAME_HEADER_BYTES > size:
                break
            head, flags, stream_id = unpack_head(view, position)
            if head & 0xFF:  # not DATA
                break
        if held is not None:
            self._hand_over(held, piece, run, events)
        return position

    def bare_end(self, position: int, frame: FrameHead, events: list[Event]) -> int:
        """Take empty DATA that ends its stream. Returns `position` if that is not what it does."""
        if self.held is not None:
            self.flush(events)  # its owner may reset the stream
        _, flags, stream_id = frame
        stream = self._core.streams.get(stream_id)
        if stream is None or not stream.state.receivable or flags != END_STREAM:
            return position
        self._core.end_remote(stream, events)
        return position + FRAME_HEADER_BYTES

    # -- any DATA frame --------------------------------------------------------------------------

    def begin(
        self, flags: int, stream_id: int, length: int, padding: int, events: list[Event]
    ) -> None:
        """Account for a DATA frame before its payload is taken. `padding` includes the byte that
        holds its length, which has been read already."""
        core = self._core
        if core.is_idle(stream_id):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream")
        if length > core.receive_window:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "connection window overrun")
        core.receive_window -= length
        self.begin_skip(length - (1 if padding else 0))
        stream = core.streams.get(stream_id)
        if stream is None or not self._takes(stream, length, events):
            core.forgive(length)
            # Its bytes are no work: they pay for nothing.
            cost = FRAME_COST + length // WORK_BYTES_PER_CREDIT
            core.spend(cost, "DATA frames on closed streams")
            if stream is None and not core.was_reset(stream_id):
                core.refuse(stream_id, ErrorCode.STREAM_CLOSED)
            return
        ends = bool(flags & END_STREAM)
        if length == padding and not ends:
            core.spend(FRAME_COST, "empty DATA frames")
        self._stream, self._ends = stream, ends
        self.left = length - padding
        self.skip -= self.left
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

    def begin_skip(self, length: int) -> None:
        """Drop the next `length` bytes: nobody wants them."""
        self._stream, self.left, self.skip, self._ends = None, 0, length, False

    def take_payload(self, view: memoryview, position: int, events: list[Event]) -> int:
        """Take what there is of the frame under way: payload, padding, then its end. Returns the
        position behind it; the payload stays `held`, in case more of its stream follows."""
        stream = self._stream
        size = len(view)
        if self.left:
            end = min(position + self.left, size)
            self.left -= end - position
            # The engine may have reset it between two pieces: its bytes are credited already.
            if stream is not None and stream.state.receivable and end > position:
                self.held, self._piece = stream, view[position:end]
            position = end
        if self.skip and not self.left:
            end = min(position + self.skip, size)
            self.skip -= end - position
            position = end
        if not self.left and not self.skip:
            if self._ends:
                self.flush(events)
                if stream is not None and stream.state.receivable:
                    self._core.end_remote(stream, events)
            self._stream = None
            self._ends = False
        return position

    # -- handing over ----------------------------------------------------------------------------

    def flush(self, events: list[Event]) -> None:
        """Hand over the held piece: no more of its stream follows at once."""
        held, self.held = self.held, None
        if held is not None:
            self._hand_over(held, self._piece, None, events)

    def _hand_over(
        self,
        stream: Stream,
        piece: memoryview,
        run: list[memoryview] | None,
        events: list[Event],
    ) -> None:
        if self.deliver is not None and not events:
            self.deliver(stream, piece, run)
        elif run is None:
            events.append(DataReceived(stream, piece))
        else:
            events.extend([DataReceived(stream, each) for each in run])

    def _hand_over_last(
        self,
        stream: Stream,
        piece: memoryview,
        run: list[memoryview] | None,
        events: list[Event],
    ) -> None:
        stream.ending = True
        self._hand_over(stream, piece, run, events)
        if stream.state.receivable:  # it may have been reset just now
            self._core.end_remote(stream, events)
