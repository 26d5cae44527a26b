"""One HTTP/2 connection of CONNECT tunnels, without I/O: bytes to events, commands to bytes.

The engine feeds decrypted bytes to `receive`, acts on the events, and writes `outbound` to TLS. It
owns sockets, time and buffers; the session owns frames, streams and windows. Nothing here waits.

A tunnel's life, client and server:

    request()          ->  RequestReceived
    ResponseReceived   <-  respond()
    frame_data(), send_data()  ->  DataReceived (or `deliver`), then consumed()    both ways
    end()              ->  StreamEnded                                             both ways
    reset()            ->  StreamReset                                             either way

`states` has the rules of when each may happen.
"""

from collections.abc import Sequence
from typing import Final

from ztunnel.hbone.compression import Fields
from ztunnel.hbone.core import Core
from ztunnel.hbone.data_frames import Deliver
from ztunnel.hbone.errors import CannotOpen, ErrorCode, OpenRefusal
from ztunnel.hbone.events import Event
from ztunnel.hbone.frames import (
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    HEADERS,
    PING,
    PING_BYTES,
    PREFACE,
    SERVER_STREAM_ID_MAX,
    STREAM_ID_MAX,
    WINDOW_DEFAULT,
    pack_frame,
    pack_header_block,
    pack_rst_stream,
    pack_settings,
    pack_window_update,
)
from ztunnel.hbone.limits import REFILL_PER_ANSWER
from ztunnel.hbone.receive import Receiver
from ztunnel.hbone.settings import Role, SessionSettings
from ztunnel.hbone.states import ASKED, CLOSED
from ztunnel.hbone.stream import Stream

_FLAGS_AT: Final = 4
_pack_header: Final = FRAME_HEADER.pack
_pack_header_into: Final = FRAME_HEADER.pack_into


class Session(Core):
    """The engine's face of a connection."""

    __slots__ = ("_receiver",)

    def __init__(self, role: Role, settings: SessionSettings) -> None:
        super().__init__(role, settings)
        self._receiver = Receiver(self)

    def start(self) -> None:
        """Write the preface, our SETTINGS and the connection's window."""
        if self.role is Role.CLIENT:
            self.outbound += PREFACE
        self.outbound += pack_settings(self.settings.announced(self.role))
        grown = self.settings.connection_window_bytes - WINDOW_DEFAULT
        if grown > 0:
            self.outbound += pack_window_update(0, grown)

    def take(self) -> bytearray:
        """Bytes to write, now the caller's. Take them only when the last ones have gone out: a peer
        that does not read its answers is found by the bytes that wait here."""
        taken = self.outbound
        self.outbound = bytearray()
        self.reply_bytes = 0
        return taken

    # -- opening and answering -------------------------------------------------------------------

    @property
    def can_open(self) -> bool:
        """True if `request` may be called. The checks are those of `_refusal`, written out because
        every new connection asks."""
        return (
            not (self.closed or self.goaway_sent or self.goaway_received)
            and len(self.streams) < self.peer.max_streams
            and self.next_id <= STREAM_ID_MAX
        )

    def _refusal(self) -> OpenRefusal | None:
        if self.closed:
            return OpenRefusal.CLOSED
        if self.goaway_sent or self.goaway_received:
            return OpenRefusal.DRAINING
        if len(self.streams) >= self.peer.max_streams:
            return OpenRefusal.STREAMS_IN_USE
        if self.next_id > STREAM_ID_MAX:
            return OpenRefusal.IDS_EXHAUSTED
        return None

    def request(
        self, authority: str, headers: Sequence[tuple[str, str]], once: Fields = ()
    ) -> Stream:
        """Open a tunnel to `authority`. `once` are headers that no other request will have.

        Raises CannotOpen: dial another connection then.
        """
        if not self.can_open:
            refusal = self._refusal()
            assert refusal is not None
            raise CannotOpen(refusal)
        stream = self.add(self.next_id, ASKED)
        self.next_id += 2
        block = self.codec.encode_request(authority, tuple(headers), once)
        self._put_block(stream, 0, block)
        return stream

    def _put_block(self, stream: Stream, flags: int, block: bytes) -> int:
        """Write a header block. Returns the bytes that it takes."""
        size = len(block)
        if size > self.frame_bytes_max:
            frames = pack_header_block(stream.id, flags, block, self.frame_bytes_max)
            self.outbound += frames
            return len(frames)
        self.outbound += _pack_header(size << 8 | HEADERS, flags | END_HEADERS, stream.id)
        self.outbound += block
        return FRAME_HEADER_BYTES + size

    def respond(
        self, stream: Stream, status: int, headers: Sequence[tuple[str, str]], end_stream: bool
    ) -> None:
        """Answer a request. Does nothing on a stream that has been reset in the meantime."""
        if stream.state.local_ended:
            return
        answered = stream.state.after_sent_headers
        if answered is None:
            raise ValueError("the stream has been answered already")
        block = self.codec.encode_response(status, tuple(headers))
        self.reply_bytes += self._put_block(stream, END_STREAM if end_stream else 0, block)
        stream.state = answered
        self.allowance.refill(REFILL_PER_ANSWER)
        if end_stream:
            self.end_local(stream)

    # -- data out --------------------------------------------------------------------------------

    def room(self, stream: Stream) -> int:
        """Payload bytes that the next DATA frame may carry now."""
        if not stream.state.sendable:
            return 0
        room = stream.send_window
        if room > self.send_window:
            room = self.send_window
        if room > self.frame_bytes_max:
            room = self.frame_bytes_max
        return room if room > 0 else 0

    def frame_data(self, stream: Stream, buffer: bytearray | memoryview, length: int) -> None:
        """Put a DATA header before the payload in buffer[9 : 9 + length]. The caller appends
        buffer[: 9 + length] to `outbound`, or writes it behind `outbound` itself.

        The checks are those of `_account`, written out because every read of an app passes here.
        """
        if (
            length > stream.send_window
            or length > self.send_window
            or length > self.frame_bytes_max
            or not stream.state.sendable
        ):
            raise ValueError("more than room() allows")
        stream.send_window -= length
        self.send_window -= length
        _pack_header_into(buffer, 0, length << 8, 0, stream.id)

    def send_data(
        self, stream: Stream, data: bytes | bytearray | memoryview, end_stream: bool = False
    ) -> None:
        """Write a DATA frame. Raises ValueError for more than `room` allows."""
        length = len(data)
        self._account(stream, length)
        self.outbound += _pack_header(length << 8, end_stream, stream.id)
        self.outbound += data
        if end_stream:
            self.end_local(stream)

    def _account(self, stream: Stream, length: int) -> None:
        if (
            not stream.state.sendable
            or length > self.frame_bytes_max
            or (length and (length > stream.send_window or length > self.send_window))
        ):
            raise ValueError("more than room() allows")
        stream.send_window -= length
        self.send_window -= length

    def end(self, stream: Stream) -> None:
        """End our half with an empty frame, if it has not ended."""
        if not stream.state.local_ended:
            self.send_data(stream, b"", end_stream=True)

    def end_with_frame(self, stream: Stream, length: int) -> None:
        """End our half with the DATA frame that was appended to `outbound` just now: the stream's,
        and `length` bytes with its header."""
        if not stream.state.local_ended:
            self.outbound[_FLAGS_AT - length] |= END_STREAM
            self.end_local(stream)

    # -- data in ---------------------------------------------------------------------------------

    def receive(
        self, data: bytes | bytearray | memoryview, deliver: Deliver | None = None
    ) -> list[Event]:
        """Take bytes of the peer. Nothing that they say raises: if they break the connection, the
        last event is ConnectionFailed.

        DATA payloads are views of `data`. With `deliver`, DATA that no event of this call precedes
        is handed over at once and makes no event of its own.
        """
        return self._receiver.receive(data, deliver)

    def consumed(self, stream: Stream, length: int) -> None:
        """Note that the application has taken `length` received bytes: windows may open again."""
        if stream.released:
            return
        credit = stream.credit + length
        if credit + stream.receive_window > self.stream_window_bytes:
            raise ValueError("more consumed than received")
        stream.credit = credit
        if (credit - self.stream_withheld_bytes) * 2 >= (
            self.stream_window_bytes - self.stream_withheld_bytes
        ):
            self.reopen_stream(stream)
        self.credit += length
        if self.credit * 2 >= self.settings.connection_window_bytes:
            self.reopen_connection()

    def use_windows(self, bytes_max: int) -> None:
        """From now on let a stream's peer have at most `bytes_max` under way, however large the
        announced window is. It may still send what it has been granted."""
        self.stream_withheld_bytes = max(0, self.stream_window_bytes - bytes_max)

    # -- ends ------------------------------------------------------------------------------------

    def reset(self, stream: Stream, code: int) -> None:
        """Abort both halves. On a closed stream this only gives unconsumed bytes back, so an engine
        calls it whenever it drops a stream early."""
        if stream.state is not CLOSED:
            self.answer(pack_rst_stream(stream.id, code))
            self.remember_reset(stream.id)
        self.drop(stream)

    def ping(self, payload: bytes) -> None:
        """Send a PING of eight bytes; `PingAcknowledged` will carry them."""
        if len(payload) != PING_BYTES:
            raise ValueError("a PING carries eight bytes")
        if not self.closed:
            self.outbound += pack_frame(PING, 0, 0, payload)

    def goaway(self, code: int, drain: bool) -> None:
        """Announce the end of the connection.

        With `drain` a server takes new streams until `finish_goaway`. Without it they are refused
        from now on, and an error code closes the connection at once. A client opens no streams in
        any of these cases.
        """
        if self.closed:
            return
        self.goaway_sent = True
        if drain and self.role is Role.SERVER:
            self.write_goaway(ErrorCode.NO_ERROR, last_stream_id=STREAM_ID_MAX)
            return
        self.refusing = True
        if drain:
            # A client's GOAWAY numbers streams that servers open. There are none, which 0 would
            # say. But h2 before March 2026 (its issue 885), as in Istio's ztunnel, takes the number
            # for one of the client's own streams and resets those above it.
            self.write_goaway(ErrorCode.NO_ERROR, last_stream_id=SERVER_STREAM_ID_MAX)
        else:
            self.write_goaway(code)
        if code != ErrorCode.NO_ERROR:
            self.close()

    def finish_goaway(self) -> None:
        """Name the last stream that is served; call it one round trip after `goaway`."""
        if not self.closed and self.goaway_sent and not self.refusing:
            self.refusing = True
            self.write_goaway(ErrorCode.NO_ERROR)

    @property
    def draining(self) -> bool:
        """True once either side has sent GOAWAY."""
        return self.goaway_sent or self.goaway_received

    @property
    def idle(self) -> bool:
        """True if no stream is open."""
        return not self.streams
