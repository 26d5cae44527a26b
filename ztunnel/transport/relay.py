"""Moves bytes between an app's socket and its stream. Decides nothing.

The two directions end independently, FIN for END_STREAM. A reset goes behind the bytes before it.

From the app, nothing is read that cannot be passed on. Its bytes stay in its socket, and `_read`
stops, until one of these goes on:

    it stops because                      it goes on by
    the app has said no more              on_ready, when the socket is readable
    the stream's window is closed         on_window
    the connection's window is closed     on_again, queued in the tunnel's `Outgoing`
    the tunnel's output is full           on_again, queued there: after the flush
    its share of the turn is used up      on_again, queued there: after the flush

To the app, bytes that its socket does not take are held here: at most the window that we advertise,
because they count as consumed only when the socket has them.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.stream import Stream
from ztunnel.loop.reactor import ENDED, READABLE, WATCH_BOTH, WATCH_READ, WRITABLE, Reactor
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.congestion import unpace
from ztunnel.transport.ends import AFTER_THE_REST, RelayEnd
from ztunnel.transport.farewell import Rest, part
from ztunnel.transport.outgoing import DIRECT_BYTES_MIN, OUTGOING_BYTES_MAX, SMALL_BYTES_RESERVED
from ztunnel.transport.scratch import (
    CHUNK_BYTES_FIRST,
    FRAME_HEAD_BYTES,
    FROM_SOCKET_VIEW,
    PAYLOAD_VIEW,
    TURN_BYTES_MAX,
    grown,
)
from ztunnel.transport.sockets import Pieces, end_handshake, reset, send_pieces
from ztunnel.transport.tunnel import Tunnel
from ztunnel.transport.waiting import Waiting

_ERROR: Final = select.EPOLLERR
_INPUT: Final = READABLE | ENDED
_MSG_MORE: Final = int(socket.MSG_MORE)


class StreamRelay:
    """One app's socket and its stream, which the relay owns from the 200 on."""

    __slots__ = (
        "_chunk_bytes",
        "_done",
        "_ended_hint",
        "_failed",
        "_out",
        "_peer_ended",
        "_pending",
        "_queued",
        "_reactor",
        "_read_done",
        "_readable",
        "_rest",
        "_session",
        "_sock",
        "_watches_write",
        "_write_done",
        "app_first",
        "from_app_bytes",
        "stream",
        "to_app_bytes",
        "tunnel",
    )

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        tunnel: Tunnel,
        stream: Stream,
        done: Callable[[RelayEnd], None],
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self.tunnel = tunnel
        self._session = tunnel.session
        self._out = tunnel.out
        self.stream = stream
        self._done = done
        self._chunk_bytes = CHUNK_BYTES_FIRST
        self._pending: Waiting | None = None  # None while the app takes everything
        self._readable = False
        self._queued = False
        self._ended_hint = False
        self._failed = False  # the app's end was reset; bytes from before may still be unread
        self._rest: Rest | None = None  # those
        self._read_done = self._write_done = False
        self._peer_ended = False  # all is handed over, which is later than the stream's state
        self._watches_write = False
        self.app_first = False  # the app has spoken before anything was said to it
        self.from_app_bytes = self.to_app_bytes = 0

    def start(self, held: bytearray | None, ready: int | None, peer_ended: bool) -> None:
        """Take over the stream and begin to move bytes.

        `held` is the payload that came before the app was there. `ready` are the reactor's events
        since somebody began to watch the socket for reading, or None if nobody does.
        """
        self.tunnel.adopt(self.stream, self)
        if ready is None:
            self._reactor.watch(self._sock.fileno(), self, WATCH_READ)
        else:
            self._reactor.hand_over(self._sock.fileno(), self)
        self._peer_ended = peer_ended
        if held:
            self._write_first(deque((memoryview(held),)))
        elif peer_ended:
            self._shut_write()
        if ready:
            self.on_ready(ready)

    @property
    def payer(self) -> Tenancy:
        return self.tunnel.payer

    def moved_from_here(self) -> tuple[int, int]:
        """Bytes (client to server, server to client) when the app here is the client."""
        return self.from_app_bytes, self.to_app_bytes

    def moved_to_here(self) -> tuple[int, int]:
        """Bytes (client to server, server to client) when the app here is the server."""
        return self.to_app_bytes, self.from_app_bytes

    # -- app → stream ----------------------------------------------------------------------------

    def on_ready(self, events: int) -> None:
        if events != READABLE:  # it nearly always is
            if events & _ERROR:
                self._app_failed()
                return
            if events & ENDED:
                self._ended_hint = True
            if events & WRITABLE and self._pending is not None:
                self._write(self._pending.pieces, self._pending)
        if events & _INPUT and not self._read_done:
            self._readable = True
            if self._queued:
                return
            # New data must not overtake relays that wait, and bulk goes behind small messages.
            if self._chunk_bytes > CHUNK_BYTES_FIRST or self._out.contended:
                self._reactor.again(self)
            else:
                self._read()

    def on_again(self) -> None:
        self._queued = False
        if self._readable and not self._read_done:
            self._read()

    def on_window(self) -> None:
        """The stream's window is open again."""
        if self._readable and not self._read_done:
            self._reactor.again(self)

    def _read(self) -> None:
        """Pass on what the app says, until one of the reasons on top of this module to stop."""
        session, stream, out = self._session, self.stream, self._out
        budget = TURN_BYTES_MAX
        tight = self.tunnel.account.tight
        if tight:
            self._chunk_bytes = CHUNK_BYTES_FIRST
        last_bytes = 0  # size of the frame that ends the session's output, if it is ours
        while budget > 0:
            size = self._chunk_bytes
            gathered = len(session.outbound)
            # Bytes that the kernel has not taken are no reason to read more of a bulk transfer.
            full = out.unsent or gathered + out.written_bytes >= OUTGOING_BYTES_MAX
            if full and (size > CHUNK_BYTES_FIRST or gathered >= SMALL_BYTES_RESERVED or tight):
                break
            if (
                size > stream.send_window
                or size > session.send_window
                or size > session.frame_bytes_max
            ):
                size = min(size, session.room(stream))
                if size <= 0:
                    self._queued = out.wait_for_window(self, had_share=budget < TURN_BYTES_MAX)
                    return
            try:
                count = self._sock.recv_into(PAYLOAD_VIEW, size)
            except BlockingIOError:
                self._readable = False
                return
            except OSError:
                self.abort(RelayEnd.APP_RESET)
                return
            if not count:
                self._app_ended(last_bytes)
                return
            last_bytes = self._pass_on(count)
            if count < size and not self._ended_hint:
                self._readable = False
                return
            if self._read_done:  # the tunnel broke
                return
            if count == self._chunk_bytes:
                self._chunk_bytes = grown(self._chunk_bytes)
            budget -= count
        self._queued = True
        out.wait_for_room(self, had_share=budget < TURN_BYTES_MAX)

    def _pass_on(self, count: int) -> int:
        """Frame the `count` bytes that were read. Returns the size of the frame if it now ends the
        session's output, or 0."""
        session, out = self._session, self._out
        session.frame_data(self.stream, FROM_SOCKET_VIEW, count)
        if not self.to_app_bytes:
            self.app_first = True
        self.from_app_bytes += count
        frame_bytes = FRAME_HEAD_BYTES + count
        if count >= DIRECT_BYTES_MIN:
            out.write_large(FROM_SOCKET_VIEW[:frame_bytes])
            frame_bytes = 0
        else:
            session.outbound += FROM_SOCKET_VIEW[:frame_bytes]
        if not out.dirty:
            out.touch()
        return frame_bytes

    def _app_ended(self, last_bytes: int) -> None:
        if self._failed:  # the kernel reports a reset once, here to a write
            self.abort(RelayEnd.APP_RESET)
            return
        self._read_done = True
        if last_bytes:
            self._session.end_with_frame(self.stream, last_bytes)
        else:
            self._session.end(self.stream)
        self._out.touch()
        if self._write_done:
            self._finish()

    def _app_failed(self) -> None:
        """The app's end was reset. Nothing can be written any more, but bytes from before wait in
        the kernel: they go to the peer first, then the reset."""
        self._failed = True
        self._drop_pending()
        if self._read_done:
            self.abort(RelayEnd.APP_RESET)
            return
        self._readable = self._ended_hint = True
        moved = self.moved_from_here
        self._rest = self._rest or Rest(self._reactor, moved, self.abort, RelayEnd.APP_RESET)
        if not self._queued:
            self._reactor.again(self)

    # -- stream → app ----------------------------------------------------------------------------

    def on_data(self, data: memoryview) -> None:
        if self._pending is not None:
            self._pending.hold(data)
            return
        if self._failed:
            self._session.consumed(self.stream, len(data))  # nobody is there to take it
            return
        try:
            # The FIN that follows the last bytes leaves with them: one packet instead of two.
            sent = self._sock.send(data, _MSG_MORE if self.stream.ending else 0)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._app_failed()
            return
        self.to_app_bytes += sent
        self._session.consumed(self.stream, sent)
        if sent < len(data):
            self._pending = Waiting(self.tunnel.account)
            self._pending.hold(data[sent:])
            self._watch_write()

    def on_data_run(self, pieces: list[memoryview]) -> None:
        """Write several frames of one read with one system call."""
        if self._failed:
            for piece in pieces:
                self.on_data(piece)
        elif self._pending is None:
            self._write_first(deque(pieces))
        else:
            self._pending.hold(b"".join(pieces))

    def _write_first(self, pieces: Pieces) -> None:
        """Write what has just come. The views die with this call, so what is left is copied."""
        self._write(pieces)
        if pieces and not self._failed:
            self._pending = Waiting(self.tunnel.account)
            self._pending.hold_all(pieces)
            self._watch_write()

    def _write(self, pieces: Pieces, waiting: Waiting | None = None) -> None:
        """Write `pieces`, of `waiting` if they have waited."""
        try:
            taken = send_pieces(self._sock, pieces)
        except OSError:
            self._app_failed()
            return
        if waiting is not None:
            waiting.taken(taken)
            if not pieces:
                self._pending = None
        self.to_app_bytes += taken
        self._session.consumed(self.stream, taken)
        self._out.touch()
        if self._peer_ended and not pieces:
            self._shut_write()

    def _drop_pending(self) -> None:
        if self._pending is not None:
            self._pending.drop()
            self._pending = None

    def _watch_write(self) -> None:
        if not self._watches_write:
            self._watches_write = True
            unpace(self._sock)
            self._reactor.watch(self._sock.fileno(), self, WATCH_BOTH)

    def on_end(self) -> None:
        self._peer_ended = True
        if self._pending is None:
            self._shut_write()

    def _shut_write(self) -> None:
        if self._failed:
            return  # the reset that is under way ends both halves
        self._write_done = True
        if self._read_done:
            self._finish()
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._app_failed()

    # -- ends ------------------------------------------------------------------------------------

    def on_response(self, status: int, ended: bool) -> None:
        raise AssertionError(f"a second response ({status}, {ended}) passed the session")

    def on_reset(self, code: int) -> None:
        """The peer has reset the stream. NO_ERROR after END_STREAM says that it has no use for the
        rest of what the app says (RFC 9113 section 8.1); for TCP that is a reset too."""
        refused = code == ErrorCode.REFUSED_STREAM
        self._cut(RelayEnd.PEER_REFUSED if refused else RelayEnd.PEER_RESET)

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        if self._peer_ended and self._read_done:
            return  # both sides have said everything, and the app still gets the rest
        self._cut(reason)

    def on_bug(self) -> None:
        self.abort(RelayEnd.INTERNAL_ERROR)

    def abort(self, reason: RelayEnd) -> None:
        """Reset both sides: the stream and the app's connection."""
        # A TCP connection that was reset is a stream error of its own type (RFC 9113 section 8.5).
        was_reset = reason is RelayEnd.APP_RESET
        self._session.reset(self.stream, ErrorCode.CONNECT_ERROR if was_reset else ErrorCode.CANCEL)
        self._out.touch()
        self._cut(reason)

    def _cut(self, reason: RelayEnd) -> None:
        if not self.to_app_bytes:
            # A reset before the handshake's last ACK would leave an entry in the kernel that only
            # the accepting side removes.
            end_handshake(self._sock)
        if reason in AFTER_THE_REST and not self._failed:
            left = None if self._pending is None else self._pending.pieces
            part(self._reactor, self._sock, left, self.tunnel.account)
        else:
            reset(self._reactor, self._sock)
        self._over(reason)

    def _finish(self) -> None:
        self._reactor.discard(self._sock)
        self._over(RelayEnd.FINISHED)

    def _over(self, reason: RelayEnd) -> None:
        if self.stream.owner is not self:
            return
        self._read_done = self._write_done = True
        if self._rest is not None:
            self._rest.over()
        self._drop_pending()
        self.tunnel.stream_over(self.stream)
        self._done(reason)
