"""Everything that arrives in a tunnel, on its way to those whom it is for: payload and the ends of
streams to their owners, the rest to the tunnel. Decrypts, and reads no socket."""

from __future__ import annotations

import math
from typing import Final

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

# The end of a slice that has none.
NO_END_S: Final = math.inf


def kept(events: list[Event]) -> list[Event]:
    """Events that outlive their read: what they say was in its buffer."""
    return [
        DataReceived(each.stream, memoryview(bytes(each.data)))
        if isinstance(each, DataReceived)
        else each
        for each in events
    ]


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
        "_undone",
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
        self._undone: list[Event] = []  # the same; they come before it
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
        tls, in_pieces = self._tls, self._pace.in_pieces
        records_max = PIECE_RECORDS if in_pieces else ALL_RECORDS
        end_s = NO_END_S
        if in_pieces or self._undone or self._rest:
            end_s = self._reactor.clock() + self._reactor.slice_s
            self._go_on(end_s)
        while tls.waiting and not (self.closed or self._rest or self._undone):
            count = tls.read_into(DECRYPTED_VIEW, records_max)
            if count and in_pieces:
                self._in_pieces(DECRYPTED_VIEW[:count], end_s)
            elif count:
                self._receive(DECRYPTED_VIEW[:count])
            if in_pieces and self._reactor.clock() >= end_s:
                self._next_turn()  # for the records that are left
                break
        if self.session.outbound:
            self.out.touch()

    def _go_on(self, end_s: float) -> None:
        """Handle what an earlier turn had no time for."""
        undone, self._undone = self._undone, []
        self._dispatch(undone, end_s)
        if self._rest and not self._undone and not self.closed:
            rest, self._rest = self._rest, b""
            self._in_pieces(memoryview(rest), end_s)

    def _next_turn(self) -> None:
        self._readable = True
        self._reactor.again(self)

    def _receive(self, data: memoryview, end_s: float = NO_END_S) -> None:
        events = self.session.receive(data, self._hand_data)
        if events:
            self._dispatch(events, end_s)

    def _in_pieces(self, data: memoryview, end_s: float) -> None:
        """Handle as much as fits into a slice of the turn; the rest comes first in the next."""
        for start in range(0, len(data), PIECE_BYTES):
            self._receive(data[start : start + PIECE_BYTES], end_s)
            if self.closed:
                return
            if self._undone or self._reactor.clock() >= end_s:
                self._rest = bytes(data[start + PIECE_BYTES :])
                if self._rest:
                    self._next_turn()
                return

    def _dispatch(self, events: list[Event], end_s: float) -> None:
        """Hand out the events of one read: everything but DATA, and DATA that came behind it. One
        of them may be a dial, so those beyond the slice wait too."""
        for number, event in enumerate(events, 1):
            if self.closed:
                return
            if isinstance(event, DataReceived):
                self._hand_data(event.stream, event.data, None)
            else:
                self._act(event)
            if end_s < NO_END_S and number < len(events) and self._reactor.clock() >= end_s:
                self._undone = kept(events[number:])
                self._next_turn()
                return

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
