"""State of one connection, and the changes that both directions make to it. Parses no bytes.

`Session` extends it towards the engine, and the receiving modules work on it. Attributes without an
underscore are for this package; the engine uses only what `Session` documents.

Received bytes of a stream are accounted for like this:

    receive_window   the peer may still send them
    + held           delivered, and not consumed yet: not stored
    + credit         consumed, and not announced to the peer yet
    = stream_window_bytes

and those of the connection in the same way.
"""

from ztunnel.hbone.compression import HeaderCodec
from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.events import Event, StreamEnded, StreamReset
from ztunnel.hbone.frames import (
    STREAM_ID_MASK,
    WINDOW_DEFAULT,
    pack_frame,
    pack_goaway,
    pack_rst_stream,
    pack_window_update,
)
from ztunnel.hbone.limits import REPLY_BYTES_MAX, RESET_COST, RESET_IDS_MAX, Allowance
from ztunnel.hbone.settings import PeerSettings, Role, SessionSettings
from ztunnel.hbone.states import CLOSED, StreamState
from ztunnel.hbone.stream import Stream


class Core:
    """One connection: settings, streams, windows, output and the two stages of its end."""

    __slots__ = (
        "allowance",
        "closed",
        "codec",
        "credit",
        "frame_bytes_max",
        "goaway_received",
        "goaway_sent",
        "highest_peer_id",
        "last_taken_id",
        "next_id",
        "outbound",
        "peer",
        "peer_ready",
        "receive_granted",
        "receive_window",
        "refusing",
        "reply_bytes",
        "reset_ids",
        "reset_ids_older",
        "role",
        "send_granted",
        "send_window",
        "settings",
        "settings_acknowledged",
        "stream_window_bytes",
        "stream_withheld_bytes",
        "streams",
    )

    def __init__(self, role: Role, settings: SessionSettings) -> None:
        self.role = role
        self.settings = settings
        self.outbound = bytearray()
        self.streams: dict[int, Stream] = {}
        self.codec = HeaderCodec(settings.header_list_bytes, settings.header_table_bytes)
        self.allowance = Allowance()
        self.peer = PeerSettings()
        self.peer_ready = False  # its first SETTINGS have come
        self.settings_acknowledged = False
        self.closed = False
        # Two stages of our GOAWAY: announced (streams still welcome), then refusing.
        self.goaway_sent = False
        self.refusing = False
        self.goaway_received = False
        self.next_id = 1
        self.highest_peer_id = 0
        self.last_taken_id = 0  # our GOAWAY names it: streams above it were not served
        self.send_window = WINDOW_DEFAULT
        self.send_granted = WINDOW_DEFAULT
        self.frame_bytes_max = self.peer.max_frame_bytes
        # HTTP/2 cannot announce a connection window below the default.
        self.receive_window = max(settings.connection_window_bytes, WINDOW_DEFAULT)
        self.receive_granted = self.receive_window
        self.credit = 0
        # Until the peer has seen our SETTINGS it may count with the default.
        self.stream_window_bytes = max(settings.initial_window_bytes, WINDOW_DEFAULT)
        # The part of each stream's window that is not given back, so that fewer bytes are under
        # way when streams with small messages share the connection.
        self.stream_withheld_bytes = 0
        self.reply_bytes = 0
        self.reset_ids: set[int] = set()
        self.reset_ids_older: set[int] = set()

    # -- the peer's costs ------------------------------------------------------------------------

    def spend(self, cost: int, reason: str) -> None:
        """Take `cost` from the peer's allowance. Raises ConnectionBroken when it is used up."""
        sent = self.send_granted - self.send_window
        received = self.receive_granted - self.receive_window
        self.allowance.spend(cost, sent + received, reason)

    def answer(self, frames: bytes) -> None:
        """Write frames that the peer made us write; `check_replies` bounds them."""
        self.outbound += frames
        self.reply_bytes += len(frames)

    def reply(self, frame: bytes) -> None:
        """Write an answer. Raises ConnectionBroken when too many wait."""
        self.answer(frame)
        self.check_replies()

    def check_replies(self) -> None:
        """Raise ConnectionBroken if the peer made us queue more answers than the bound.

        Only while receiving: `receive` turns it into a GOAWAY.
        """
        if self.reply_bytes > REPLY_BYTES_MAX:
            # An engine may drain without take(): never more waits than there is.
            self.reply_bytes = min(self.reply_bytes, len(self.outbound))
            if self.reply_bytes > REPLY_BYTES_MAX:
                raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "peer does not read answers")

    # -- windows ---------------------------------------------------------------------------------

    def reopen_connection(self) -> None:
        """Announce the connection's credit once it is half of the window."""
        if self.credit * 2 >= self.settings.connection_window_bytes and not self.closed:
            self.outbound += pack_window_update(0, self.credit)
            self.receive_window += self.credit
            self.receive_granted += self.credit
            self.credit = 0

    def reopen_stream(self, stream: Stream) -> None:
        """Announce a stream's credit once it is half of the window that is in use."""
        withheld = self.stream_withheld_bytes
        grown = stream.credit - withheld
        if (
            grown * 2 < self.stream_window_bytes - withheld
            or stream.state.remote_ended
            or self.closed
        ):
            return
        self.outbound += pack_window_update(stream.id, grown)
        stream.receive_window += grown
        stream.credit = withheld

    def forgive(self, length: int) -> None:
        """Give bytes that no application will take straight back to the connection."""
        self.credit += length
        self.reopen_connection()

    def release(self, stream: Stream) -> None:
        """Give back, once, the bytes of this stream that the engine will not consume any more."""
        if stream.released:
            return
        stream.released = True
        self.forgive(self.stream_window_bytes - stream.receive_window - stream.credit)

    # -- the life of streams ---------------------------------------------------------------------

    def add(self, stream_id: int, state: StreamState) -> Stream:
        """Make a stream with full windows."""
        stream = Stream(stream_id, state, self.peer.initial_window_bytes, self.stream_window_bytes)
        self.streams[stream_id] = stream
        return stream

    def end_local(self, stream: Stream) -> None:
        """END_STREAM has been written."""
        state = stream.state.after_sent_end
        assert state is not None
        stream.state = state
        if state is CLOSED:
            self.streams.pop(stream.id, None)

    def end_remote(self, stream: Stream, events: list[Event]) -> None:
        """END_STREAM has come, behind DATA or trailers."""
        events.append(StreamEnded(stream))
        self.close_remote(stream)

    def close_remote(self, stream: Stream) -> None:
        """END_STREAM has come, in a frame whose own event says so."""
        state = stream.state.after_received_end
        assert state is not None
        stream.state = state
        if state is CLOSED:
            self.streams.pop(stream.id, None)

    def drop(self, stream: Stream) -> None:
        """Close both halves, because either side has reset the stream."""
        stream.shut()
        self.streams.pop(stream.id, None)
        self.release(stream)

    def remember_reset(self, stream_id: int) -> None:
        """Note that frames of this stream may still be under way. Two generations bound the set."""
        if len(self.reset_ids) >= RESET_IDS_MAX:
            self.reset_ids_older = self.reset_ids
            self.reset_ids = set()
        self.reset_ids.add(stream_id)

    def was_reset(self, stream_id: int) -> bool:
        """True if we reset this stream, as far as we remember."""
        return stream_id in self.reset_ids or stream_id in self.reset_ids_older

    def is_idle(self, stream_id: int) -> bool:
        """True if this id has not been used yet, so that only HEADERS may come on it."""
        if self.role is Role.CLIENT:
            return stream_id % 2 == 0 or stream_id >= self.next_id
        return stream_id % 2 == 0 or stream_id > self.highest_peer_id

    def refuse(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream that the engine never saw, or that is closed already."""
        self.reply(pack_rst_stream(stream_id, code))
        self.remember_reset(stream_id)
        self.allowance.charge(RESET_COST, "refused streams")

    def break_stream(self, stream: Stream, code: ErrorCode, events: list[Event]) -> None:
        """Reset a stream whose rules the peer broke."""
        self.drop(stream)
        events.append(StreamReset(stream, code))
        self.refuse(stream.id, code)

    # -- the end of the connection ---------------------------------------------------------------

    def write_goaway(self, code: int, debug: bytes = b"", *, last_stream_id: int = -1) -> None:
        """Write GOAWAY with `last_stream_id`, by default the last stream that was served."""
        last = self.last_taken_id if last_stream_id < 0 else last_stream_id
        self.outbound += pack_goaway(last & STREAM_ID_MASK, code, debug)

    def close(self) -> None:
        """Close the connection and its streams. What is in `outbound` may still be written."""
        self.closed = True
        self.send_window = 0
        for stream in self.streams.values():
            stream.shut()
        self.streams.clear()


def pack_ack(kind: int, payload: bytes = b"") -> bytes:
    """Acknowledgement of a SETTINGS or PING frame."""
    return pack_frame(kind, 1, 0, payload)
