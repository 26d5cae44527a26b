"""HEADERS and CONTINUATION: collects a block, decodes it, and opens, answers or ends a stream."""

from ztunnel.hbone.compression import Block
from ztunnel.hbone.core import Core
from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.events import Event, RequestReceived, ResponseReceived
from ztunnel.hbone.frames import END_HEADERS, END_STREAM, HAS_PRIORITY, PADDED, depends_on
from ztunnel.hbone.headers import MalformedError, check_trailers
from ztunnel.hbone.limits import CONTINUATIONS_MAX, FIELDS_PER_CREDIT, FRAME_COST, REFILL_PER_ANSWER
from ztunnel.hbone.settings import Role
from ztunnel.hbone.states import REQUESTED, REQUESTED_ENDED
from ztunnel.hbone.stream import Stream

_PRIORITY_BYTES = 5


class HeaderFrames:
    """The receiver's part for header blocks; at most one block is under way."""

    __slots__ = ("_block", "_continuations", "_core", "_ends", "expecting")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._block = bytearray()
        self._continuations = 0
        self._ends = False
        self.expecting = 0  # the stream whose block is under way; only its CONTINUATION may come

    def on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        """Begin a block, and act on it if it is whole."""
        if stream_id % 2 == 0:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "HEADERS on a wrong stream")
        block = _strip(flags, stream_id, payload)
        ends = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self.on_block(stream_id, ends, block, events)
            return
        self.expecting = stream_id
        self._ends = ends
        self._continuations = 0
        self._block += block

    def on_continuation(
        self, flags: int, stream_id: int, payload: bytes, events: list[Event]
    ) -> None:
        """Add to the block under way, and act on it if that was the rest."""
        self._continuations += 1
        if self._continuations > CONTINUATIONS_MAX:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        if len(self._block) + len(payload) > self._core.settings.header_list_bytes:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        self._block += payload
        if flags & END_HEADERS:
            block = bytes(self._block)
            self._block.clear()
            self.expecting = 0
            self.on_block(stream_id, self._ends, block, events)

    def on_block(self, stream_id: int, ends: bool, block: bytes, events: list[Event]) -> None:
        """Act on a whole header block. `stream_id` must be odd, `ends` is its END_STREAM."""
        core = self._core
        decoded = core.codec.decode(block)  # always, or the compression states diverge
        if decoded.fields >= FIELDS_PER_CREDIT:
            core.allowance.charge(decoded.fields // FIELDS_PER_CREDIT, "header fields")
        stream = core.streams.get(stream_id)
        if stream is not None:
            self._on_known(stream, ends, decoded, events)
        elif not core.is_idle(stream_id):
            self._on_closed(stream_id)
        elif core.role is Role.SERVER:
            self._on_new(stream_id, ends, decoded, events)
        else:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "HEADERS on an idle stream")

    def _on_new(self, stream_id: int, ends: bool, block: Block, events: list[Event]) -> None:
        core = self._core
        core.check_replies()
        core.highest_peer_id = stream_id
        limit = core.settings.max_concurrent_streams
        if core.refusing or (limit is not None and len(core.streams) >= limit):
            core.refuse(stream_id, ErrorCode.REFUSED_STREAM)
            return
        core.last_taken_id = stream_id
        try:
            request = block.request()
        except MalformedError:
            core.refuse(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        stream = core.add(stream_id, REQUESTED_ENDED if ends else REQUESTED)
        events.append(
            RequestReceived(stream, request.method, request.authority, request.headers, ends)
        )

    def _on_closed(self, stream_id: int) -> None:
        core = self._core
        core.spend(FRAME_COST, "HEADERS on closed streams")
        if core.role is Role.SERVER and not core.was_reset(stream_id):
            raise ConnectionBroken(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")

    def _on_known(self, stream: Stream, ends: bool, block: Block, events: list[Event]) -> None:
        core = self._core
        if stream.state.remote_ended:
            core.break_stream(stream, ErrorCode.STREAM_CLOSED, events)
            return
        try:
            if stream.state.receivable:
                self._on_trailers(stream, ends, block, events)
            else:
                self._on_response(stream, ends, block, events)
        except MalformedError:
            core.break_stream(stream, ErrorCode.PROTOCOL_ERROR, events)

    def _on_trailers(self, stream: Stream, ends: bool, block: Block, events: list[Event]) -> None:
        if not ends:
            raise MalformedError("trailers that do not end the stream")
        check_trailers(block.raw())
        self._core.end_remote(stream, events)

    def _on_response(self, stream: Stream, ends: bool, block: Block, events: list[Event]) -> None:
        response = block.response()
        if response.status < 200:
            if ends:
                raise MalformedError("interim response ends the stream")
            self._core.spend(FRAME_COST, "interim responses")
            return
        answered = stream.state.after_received_headers
        assert answered is not None
        stream.state = answered
        self._core.allowance.refill(REFILL_PER_ANSWER)
        events.append(ResponseReceived(stream, response.status, response.headers, ends))
        if ends:
            self._core.close_remote(stream)


def _strip(flags: int, stream_id: int, payload: bytes) -> bytes:
    """The header block of a HEADERS payload, without padding and the obsolete priority."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without pad length")
        start, end = 1, end - payload[0]
    if flags & HAS_PRIORITY:
        start += _PRIORITY_BYTES
        if start > len(payload):
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without whole priority")
        if depends_on(payload, start - _PRIORITY_BYTES) == stream_id:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
    if start > end:
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "padding exceeds the frame")
    return payload[start:end]
