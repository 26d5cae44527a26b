"""Everything that arrives in a tunnel, on its way to those whom it is for: payload and the ends of
streams to their owners, the rest to the tunnel. Decrypts, and reads no socket."""

from __future__ import annotations

from ztunnel.hbone.events import (
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowOpened,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.stream import Stream
from ztunnel.loop.reactor import Reactor
from ztunnel.transport.ends import StreamOwner
from ztunnel.transport.mixture import SMALL_BYTES_MAX, Mixture
from ztunnel.transport.outgoing import Outgoing
from ztunnel.transport.pace import PIECE_BYTES, PIECE_RECORDS, ReadPace
from ztunnel.transport.scratch import DECRYPTED_VIEW
from ztunnel.transport.tls import ALL_RECORDS, TlsConnection


class Incoming:
    """A tunnel's half that hands out; `Tunnel` extends it by all that a connection needs."""

    __slots__ = (
        "_full",
        "_mixture",
        "_pace",
        "_reactor",
        "_readable",
        "_rest",
        "_tls",
        "closed",
        "out",
        "session",
    )

    def __init__(self, reactor: Reactor, tls: TlsConnection, session: Session) -> None:
        """The heir sets `out`."""
        self._reactor = reactor
        self._tls = tls
        self.session = session
        self.out: Outgoing
        self._pace = ReadPace()
        self._rest: bytes = b""  # decrypted, and not handled in its turn
        self._mixture = Mixture()
        self._readable = False
        self._full = False  # the last read left something in the socket
        self.closed = False

    @property
    def peer_not_after_s(self) -> float:
        """The end of the peer's certificate, once it is verified; by the wall clock."""
        return self._tls.peer_not_after_s

    def on_again(self) -> None:
        raise NotImplementedError

    def on_bug(self) -> None:
        raise NotImplementedError

    def _hand_request(self, event: RequestReceived) -> None:
        raise NotImplementedError

    def _about_tunnel(self, event: Event) -> None:
        """Act on an event that is about no stream."""
        raise NotImplementedError

    def _deliver(self) -> None:
        tls = self._tls
        if self._rest:
            rest, self._rest = self._rest, b""
            self._in_pieces(memoryview(rest))
        in_pieces = self._pace.in_pieces
        records_max = PIECE_RECORDS if in_pieces else ALL_RECORDS
        end_s = self._reactor.clock() + self._reactor.slice_s if in_pieces else 0.0
        while tls.waiting and not self.closed and not self._rest:
            count = tls.read_into(DECRYPTED_VIEW, records_max)
            if count and in_pieces:
                self._in_pieces(DECRYPTED_VIEW[:count])
            elif count:
                self._receive(DECRYPTED_VIEW[:count])
            if in_pieces and self._reactor.clock() >= end_s:
                self._readable = True
                self._reactor.again(self)  # for the records that are left
                break
        if self.session.outbound:
            self.out.touch()

    def _receive(self, data: memoryview) -> None:
        events = self.session.receive(data, self._hand_data)
        if events:
            self._dispatch(events)

    def _in_pieces(self, data: memoryview) -> None:
        """Handle as much as fits into a slice of the turn; the rest comes first in the next."""
        end_s = self._reactor.clock() + self._reactor.slice_s
        for start in range(0, len(data), PIECE_BYTES):
            self._receive(data[start : start + PIECE_BYTES])
            if self.closed:
                return
            if self._reactor.clock() >= end_s and start + PIECE_BYTES < len(data):
                self._rest = bytes(data[start + PIECE_BYTES :])
                self._readable = True
                self._reactor.again(self)
                return

    def _dispatch(self, events: list[Event]) -> None:
        """Hand out the events of one read: everything but DATA, and DATA that came behind it."""
        for event in events:
            if self.closed:
                return
            if isinstance(event, DataReceived):
                self._hand_data(event.stream, event.data, None)
            else:
                self._act(event)

    def _hand_data(self, stream: Stream, data: memoryview, run: list[memoryview] | None) -> None:
        """Give DATA to the stream's owner; the session calls this in the middle of a read. `run`
        has all pieces if there are several, `data` is the first."""
        owner: StreamOwner | None = stream.owner
        if owner is None:
            return
        try:
            if run is None:
                if len(data) <= SMALL_BYTES_MAX:
                    self._mixture.small += 1
                owner.on_data(data)
            else:
                owner.on_data_run(run)
        except Exception:  # the reactor's boundary, drawn around one stream instead of the tunnel
            self._reactor.caught(owner)

    def _act(self, event: Event) -> None:
        # The life of streams comes first: every connection passes here twice.
        if isinstance(event, (StreamEnded, ResponseReceived, StreamReset)):
            self._tell_owner(event)
        elif isinstance(event, RequestReceived):
            self._hand_request(event)
        elif isinstance(event, WindowOpened):
            if event.stream is None:
                self.out.window_opened()
            elif event.stream.owner is not None:
                event.stream.owner.on_window()
        else:
            self._about_tunnel(event)

    def _tell_owner(self, event: StreamEnded | StreamReset | ResponseReceived) -> None:
        owner: StreamOwner | None = event.stream.owner
        if owner is None:
            return
        try:
            if isinstance(event, StreamEnded):
                owner.on_end()
            elif isinstance(event, StreamReset):
                owner.on_reset(event.code)
            else:
                owner.on_response(event.status, event.ended)
        except Exception:  # the reactor's boundary, drawn around one stream instead of the tunnel
            self._reactor.caught(owner)
