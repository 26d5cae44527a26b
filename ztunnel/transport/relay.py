"""Moves bytes between an app's socket and its stream; decides nothing.

Both directions end independently (FIN ↔ END_STREAM), a reset of either side resets the other.
Nothing is read that cannot be passed on: an app's bytes stay in its socket while the stream's
window or the tunnel's buffer is full, and bytes that the app does not take are held here, at most
the window that we advertise, and reported as consumed only when the app has them.
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
from ztunnel.transport.congestion import unpace
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.farewell import part
from ztunnel.transport.scratch import (
    FRAME_HEAD_BYTES,
    FROM_SOCKET,
    FROM_SOCKET_VIEW,
    PAYLOAD_VIEW,
    READ_BYTES_MAX,
)
from ztunnel.transport.sockets import end_handshake, reset
from ztunnel.transport.tunnel import Tunnel

# A first read takes any small message whole; a transfer that fills its reads gets larger ones.
# With the frame's header each is a number of whole TLS records.
CHUNK_BYTES_FIRST: Final = 16 * 1024 - FRAME_HEAD_BYTES
CHUNK_BYTES_MAX: Final = READ_BYTES_MAX - FRAME_HEAD_BYTES
CHUNK_GROWTH: Final = 4
# A read so large is encrypted from where it lies; a smaller one gathers with those of others.
DIRECT_BYTES_MIN: Final = 64 * 1024 - FRAME_HEAD_BYTES
# What may wait in a tunnel for a peer that does not read, before the apps' sockets are left alone:
# one turn's largest write, and one more read on top of it.
OUTGOING_BYTES_MAX: Final = 256 * 1024
# And beyond that, for connections that have never filled a read: what small messages may gather in
# a turn that bulk has used up.
SMALL_BYTES_RESERVED: Final = 64 * 1024
# One connection's share of a turn in each direction: others wait at most for this many bytes each.
TURN_BYTES_MAX: Final = CHUNK_BYTES_MAX
# Pieces for one sendmsg; the kernel takes 1,024, but more than these are one read's worth.
PIECES_MAX: Final = 64
_ERROR: Final = select.EPOLLERR
# Ends of the other side: the app still gets what had come before. Ends that are meant for this
# connection (policy, deletion, our own bugs) take effect at once.
_AFTER_THE_REST: Final = frozenset(
    {RelayEnd.PEER_RESET, RelayEnd.PEER_REFUSED, RelayEnd.TUNNEL_LOST, RelayEnd.DRAINED}
)
_MSG_MORE: Final = int(socket.MSG_MORE)


class StreamRelay:
    """App socket ↔ stream. Owner of the stream from the 200 on."""

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
        # None while the app takes everything: an empty deque alone is 600 bytes.
        self._pending: deque[bytes | memoryview] | None = None
        self._readable = False
        self._queued = False
        self._ended_hint = False
        self._failed = False  # the app's end was reset; what it said before is still to be read
        self._read_done = False
        self._write_done = False
        # Not `stream.remote_closed`: that is true before the last pieces have been handed out.
        self._peer_ended = False
        self._watches_write = False
        self.app_first = False  # the app has spoken before anything was said to it
        self.from_app_bytes = 0
        self.to_app_bytes = 0

    def start(self, held: list[bytes], ready: int | None, peer_ended: bool) -> None:
        """`held` came before the app was there. `ready`: what has happened since somebody began to
        watch the socket for reading; None: nobody does."""
        self.tunnel.adopt(self.stream, self)
        if ready is None:
            self._reactor.watch(self._sock.fileno(), self, WATCH_READ)
        else:
            self._reactor.hand_over(self._sock.fileno(), self)
        self._peer_ended = peer_ended
        if held:
            self._write_pending(deque(held))
        elif peer_ended:
            self._shut_write()
        if ready:
            self.on_ready(ready)

    def moved_from_here(self) -> tuple[int, int]:
        """(client → server, server → client) when the app here is the client."""
        return self.from_app_bytes, self.to_app_bytes

    def moved_to_here(self) -> tuple[int, int]:
        """The same when the app here is the server."""
        return self.to_app_bytes, self.from_app_bytes

    # -- app → stream ----------------------------------------------------------------------------

    def on_ready(self, events: int) -> None:
        if events != READABLE:  # nearly always it is just that
            if events & _ERROR:
                self._app_failed()
                return
            if events & ENDED:
                self._ended_hint = True
            if events & WRITABLE and self._pending:
                self._write_pending(self._pending)
        if events & (READABLE | ENDED) and not self._read_done:
            self._readable = True
            if self._queued:
                return
            # New data must not be a way past those who wait, and bulk comes after all small ones.
            if self._chunk_bytes > CHUNK_BYTES_FIRST or self._out.contended:
                self._reactor.again(self)
            else:
                self._read()

    def on_again(self) -> None:
        self._queued = False
        if self._readable and not self._read_done:
            self._read()

    def on_window(self) -> None:
        """The stream's window opened."""
        if self._readable and not self._read_done:
            self._reactor.again(self)

    def _read(self) -> None:
        session, stream, out = self._session, self.stream, self._out
        budget = TURN_BYTES_MAX
        last_bytes = 0  # of the frame that ends the session's output, if it is ours
        while budget > 0:
            size = self._chunk_bytes
            unsent = len(out.unsent)
            gathered = len(session.outbound)
            full = unsent + gathered + out.written_bytes >= OUTGOING_BYTES_MAX
            # What the kernel has not taken is no reason to read more of a bulk transfer.
            if (full or unsent) and (size > CHUNK_BYTES_FIRST or gathered >= SMALL_BYTES_RESERVED):
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
                self._abandon(RelayEnd.APP_RESET)
                return
            if not count:
                self._app_ended(last_bytes)
                return
            session.frame_data(stream, FROM_SOCKET, count)
            if not self.to_app_bytes:
                self.app_first = True
            self.from_app_bytes += count
            if count >= DIRECT_BYTES_MIN:
                out.write_large(FROM_SOCKET_VIEW[: FRAME_HEAD_BYTES + count])
                if self._read_done:  # the tunnel broke
                    return
                last_bytes = 0
            else:
                last_bytes = FRAME_HEAD_BYTES + count
                session.outbound += FROM_SOCKET_VIEW[: FRAME_HEAD_BYTES + count]
            out.touch()
            if count < size:
                if not self._ended_hint:
                    self._readable = False
                    return
            elif size == self._chunk_bytes < CHUNK_BYTES_MAX:
                self._chunk_bytes = min(
                    (size + FRAME_HEAD_BYTES) * CHUNK_GROWTH - FRAME_HEAD_BYTES, CHUNK_BYTES_MAX
                )
            budget -= count
        self._queued = True
        out.wait_for_room(self, had_share=budget < TURN_BYTES_MAX)

    def _app_ended(self, last_bytes: int) -> None:
        if self._failed:  # the kernel tells of a reset once, and a write has heard of it
            self._abandon(RelayEnd.APP_RESET)
            return
        self._read_done = True
        if last_bytes:
            self._session.end_with_frame(self.stream, last_bytes)
        else:
            self._session.end(self.stream)
        self._out.touch()
        if self._write_done:
            self._finish(RelayEnd.FINISHED)

    def _app_failed(self) -> None:
        """The app's end was reset. Nothing can be written any more, but what it said before waits
        in the kernel: it goes to the peer first, then the reset."""
        self._failed = True
        self._pending = None
        if self._read_done:
            self._abandon(RelayEnd.APP_RESET)
            return
        self._readable = self._ended_hint = True
        if not self._queued:
            self._reactor.again(self)

    # -- stream → app ----------------------------------------------------------------------------

    def on_data(self, data: memoryview) -> None:
        if self._pending:
            self._hold(data)
            return
        if self._failed:
            self._session.consumed(self.stream, len(data))  # there is nobody to take it
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
            self._hold(data[sent:])

    def on_data_run(self, pieces: list[memoryview]) -> None:
        """Several frames of one read: one system call."""
        if self._failed:
            for piece in pieces:
                self.on_data(piece)
        elif not self._pending:
            self._write_pending(deque(pieces))
            # The views die with this call: whatever is left has to be kept for real.
            if self._pending:
                self._pending = deque(bytes(piece) for piece in self._pending)
        else:
            for piece in pieces:
                self._hold(piece)

    def _hold(self, data: memoryview) -> None:
        if self._pending is None:
            self._pending = deque()
        self._pending.append(bytes(data))
        self._watch_write()

    def _watch_write(self) -> None:
        if not self._watches_write:
            self._watches_write = True
            unpace(self._sock)
            self._reactor.watch(self._sock.fileno(), self, WATCH_BOTH)

    def _write_pending(self, pending: deque[bytes | memoryview]) -> None:
        self._pending = pending
        taken = 0
        while pending:
            try:
                sent = self._sock.sendmsg(
                    [pending[index] for index in range(min(len(pending), PIECES_MAX))]
                )
            except BlockingIOError:
                self._watch_write()
                break
            except OSError:
                self._app_failed()
                return
            taken += sent
            while sent:
                first = pending[0]
                if sent < len(first):
                    pending[0] = memoryview(first)[sent:]
                    break
                sent -= len(first)
                pending.popleft()
        self.to_app_bytes += taken
        self._session.consumed(self.stream, taken)
        self._out.touch()
        if not pending:
            self._pending = None
            if self._peer_ended:
                self._shut_write()

    def on_end(self) -> None:
        self._peer_ended = True
        if not self._pending:
            self._shut_write()

    def _shut_write(self) -> None:
        if self._failed:
            return  # the reset that is under way ends both halves
        self._write_done = True
        if self._read_done:
            self._finish(RelayEnd.FINISHED)
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._app_failed()

    # -- ends ------------------------------------------------------------------------------------

    def on_response(self, status: int, ended: bool) -> None:
        raise AssertionError(f"a second response ({status}, {ended}) passed the session")

    def on_reset(self, code: int) -> None:
        """The peer reset the stream. NO_ERROR after END_STREAM means that it has no use for the
        rest of what the app says, which for TCP is a reset as well (RFC 9113 8.1)."""
        refused = code == ErrorCode.REFUSED_STREAM
        self._cut(RelayEnd.PEER_REFUSED if refused else RelayEnd.PEER_RESET)

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        if self._peer_ended and self._read_done:
            return  # both sides have said everything; the app still gets the rest
        self._cut(reason)

    def abort(self, reason: RelayEnd) -> None:
        """End it from our side, both ways."""
        self._abandon(reason)

    def on_bug(self) -> None:
        self._abandon(RelayEnd.INTERNAL_ERROR)

    def _abandon(self, reason: RelayEnd) -> None:
        # RFC 9113 8.5: a TCP connection that was reset is a stream error of this type.
        was_reset = reason is RelayEnd.APP_RESET
        self._session.reset(self.stream, ErrorCode.CONNECT_ERROR if was_reset else ErrorCode.CANCEL)
        self._out.touch()
        self._cut(reason)

    def _cut(self, reason: RelayEnd) -> None:
        if not self.to_app_bytes:
            # A reset before the handshake's last ACK would leave the kernel half an entry that only
            # the accepting side takes away.
            end_handshake(self._sock)
        if reason in _AFTER_THE_REST and not self._failed:
            part(self._reactor, self._sock, self._pending)
        else:
            reset(self._reactor, self._sock)
        self._over(reason)

    def _finish(self, reason: RelayEnd) -> None:
        self._reactor.discard(self._sock)
        self._over(reason)

    def _over(self, reason: RelayEnd) -> None:
        if self.stream.owner is not self:
            return
        self._read_done = self._write_done = True
        self._pending = None
        self.tunnel.stream_over(self.stream)
        self._done(reason)
