"""One connection: TLS 1.3 towards the client, plain HTTP/2 towards gRPC, nothing kept in between.

The client's bytes are read only while the connection may go on. What stops it, each by a word in
`_holds`: its turn (no token yet), gRPC or the client itself that takes no more, its node's pace or
share, or the lack of a token. Deadlines close what never gets to a call.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from control.kit.clock import Clock
from control.server.callers.arrivals import REFUSED_CALLS_MAX, Arrival, Arrivals
from control.server.callers.budget import KIB, Ticket
from control.server.callers.refusals import CallRefusal
from control.server.front.meter import Meter, Misbehaved
from control.server.front.patience import ClientPatience
from control.server.front.records import Records

# Time that a client may take, without that in which it waits for its turn here: from the first
# packet to the end of the handshake, which a distant node does in 0.5 s; from there to a call with
# a token, which gRPC and an API server may delay.
HANDSHAKE_S = 5.0
ADMISSION_S = 20.0
# One large message, once its share was granted: 16 MiB at half a MiB a second.
LARGE_S = 32.0
TAKEN_S = 2.0  # until it was taken from gRPC, at most: then the next one may come
STALLED_S = 60.0  # a client that takes nothing; gRPC's own pings find one that is gone
CLOSING_S = 5.0  # for the last bytes of a connection that ends
UNADMITTED_BYTES_MAX = 40 * KIB  # a handshake, a call and a certificate request are some 6 KiB
UNADMITTED_CALLS_MAX = 8  # the first one that is let in frees the others
READ_BYTES = 16 * KIB  # from a client at once: bounds the price of a turn
LARGE_READ_BYTES = 64 * KIB  # a large message that has its share: a millisecond
ANSWER_BYTES = 64 * KIB  # from gRPC at once
WAITING_BYTES_MAX = 64 * KIB  # written and not taken, in each direction
# Price of a TLS record in bytes, as the meter's: some 20 us, even if it carries next to nothing.
RECORD_COST = 4 * KIB


@dataclass(slots=True)
class Shared:
    """Parts that all connections use."""

    arrivals: Arrivals
    clock: Clock
    context: Callable[[], ssl.SSLContext]
    connect: Callable[[Relay], None]  # opens the way to gRPC, and calls `connected`
    queue: Callable[[Relay], None]  # has `step` called when it is the turn of its source
    client_buffer: bytearray
    answer_buffer: bytearray
    open: set[Relay] = field(default_factory=set)  # whose client still gets bytes
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # none is open


class Relay(asyncio.BufferedProtocol):
    """The client's side; `Answers` is gRPC's."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._records = Records()
        self._fresh = b""  # read, and not taken in: one read's at most
        self._meter = Meter()
        self._open = False  # the handshake is done
        self._holds: set[str] = set()
        self._early = 0  # bytes in TLS before the first call was let in
        self._backlog: list[bytes] = []  # one turn's at most: it came before gRPC was connected
        self._connecting = False
        self._share: Ticket | None = None  # a place in RECEIVING
        self._timers: dict[object, asyncio.TimerHandle] = {}
        self._patience = ClientPatience(self.close)  # with a client without a token
        self._transport: asyncio.Transport
        self._grpc: asyncio.Transport | None = None
        self.closed = False
        self._left = False  # a connection counts until its descriptor is given back
        self.arrival: Arrival

    # --- the client's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._shared.open.add(self)
        self._shared.idle.clear()
        transport.set_write_buffer_limits(high=WAITING_BYTES_MAX)
        peer: tuple[str, int] = (transport.get_extra_info("peername") or ("unknown", 0))[:2]
        self.arrival = self._shared.arrivals.open(*peer, self.close, self._admitted)
        self.arrival.taken = self._taken
        self._patience.expect(CallRefusal.HANDSHAKE_TIMEOUT, HANDSHAKE_S)

    def get_buffer(self, sizehint: int) -> memoryview:
        is_large = self._share is not None and self._share.granted
        most = LARGE_READ_BYTES if is_large else READ_BYTES
        return memoryview(self._shared.client_buffer)[:most]

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed:
            return
        self._fresh = bytes(memoryview(self._shared.client_buffer)[:nbytes])
        if self.arrival.is_admitted:
            self.step()
        else:
            self._hold("turn")
            self._shared.arrivals.hear(self.arrival)
            self._patience.stop()
            self._shared.queue(self)

    def eof_received(self) -> bool:
        self._end()
        return False

    def pause_writing(self) -> None:
        if self._grpc is not None:
            self._grpc.pause_reading()
        self._hold("client")  # TLS answers too
        self._within(STALLED_S, CallRefusal.STALLED)

    def resume_writing(self) -> None:
        self._cancel(CallRefusal.STALLED)
        self._free("client")
        if self._grpc is not None:
            self._grpc.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._leave()
        self._shared.open.discard(self)
        if not self._shared.open:
            self._shared.idle.set()

    def step(self) -> None:
        """Take in what has been read."""
        if self.closed:
            return
        self._free("turn")
        try:
            self._receive()
            if self._tls is None:  # not before its turn: it costs as much as the rest of an accept
                context = self._shared.context()
                self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            if not self._open:
                self._shake_hands(self._tls)
            self._take_in(self._tls)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self._flush()  # the alert, which tells the client why
            old = exc.reason == "UNSUPPORTED_PROTOCOL"
            self.close(CallRefusal.TLS_VERSION if old else CallRefusal.TLS)
            return
        except Misbehaved as exc:
            self.close(exc.why)
            return
        self._flush()
        if not self.arrival.is_admitted:
            self._go_on_waiting()

    def _receive(self) -> None:
        """Hand TLS what has been read, and count it."""
        fresh, self._fresh = self._fresh, b""
        records = self._records.feed(memoryview(fresh))
        self._incoming.write(fresh)
        if self.arrival.is_admitted:
            self._pace(records * RECORD_COST, 0)
            return
        self._early += len(fresh)
        if self._early > UNADMITTED_BYTES_MAX:
            self._hold("admission")

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        tls.do_handshake()
        if tls.selected_alpn_protocol() != "h2":
            raise Misbehaved(CallRefusal.ALPN)
        self._open = True
        self._patience.expect(CallRefusal.ADMISSION_TIMEOUT, ADMISSION_S)

    def _take_in(self, tls: ssl.SSLObject) -> None:
        pieces: list[bytes] = []
        try:
            while data := tls.read(READ_BYTES):
                self._count(data)
                pieces.append(data)
        finally:  # there is more to come, mostly
            if pieces:
                self._forward(b"".join(pieces))
        self._end()  # the client's close_notify

    def _count(self, data: bytes) -> None:
        if self.arrival.refused_calls >= REFUSED_CALLS_MAX and not self.arrival.is_admitted:
            raise Misbehaved(CallRefusal.REFUSED_CALLS_MAX)
        calls = self._meter.calls
        cost = self._meter.received(memoryview(data))
        if self.arrival.is_admitted:
            self._pace(cost, self._meter.calls - calls)
        elif self._meter.calls >= UNADMITTED_CALLS_MAX:
            self._hold("admission")
        self._balance()

    def _forward(self, data: bytes) -> None:
        if self._grpc is not None:
            if not self._grpc.is_closing():
                self._grpc.write(data)
            return
        self._backlog.append(data)
        self._hold("grpc")
        if not self._connecting:
            self._connecting = True
            self._shared.arrivals.pass_on(self.arrival)
            self._shared.connect(self)

    def _pace(self, cost: int, calls: int) -> None:
        arrivals, payer = self._shared.arrivals, self.arrival.payer
        now_s = self._shared.clock.monotonic_s()
        wait_s = max(
            arrivals.received.spend(payer, cost, now_s), arrivals.opened.spend(payer, calls, now_s)
        )
        if wait_s > 0:
            self._hold("pace")
            self._cancel("pace")  # debts only grow: the last one says how long
            loop = asyncio.get_running_loop()
            self._timers["pace"] = loop.call_later(wait_s, self._free, "pace")

    # --- large messages

    def _balance(self) -> None:
        """Have a share of RECEIVING while a large message is unfinished."""
        self.arrival.is_sending = self._meter.unfinished > 0
        share = self._share
        if not self.arrival.is_sending:
            if share is not None and share.granted and not self.closed:
                self._await_taking()
            else:
                self._give_share()
        elif share is not None and "taken" in self._timers:  # one more
            self._granted()
        elif share is None and self.arrival.is_admitted:
            self._hold("share")
            self._share = self._shared.arrivals.receiving.ask(self.arrival.payer, 1, self._granted)
            if self._share.granted:
                self._granted()

    def _granted(self) -> None:
        self._cancel("taken")
        self._within(LARGE_S, CallRefusal.SLOW_MESSAGE)
        self._free("share")

    def _await_taking(self) -> None:
        """The message is whole, in gRPC: all of 500 nodes would be there at once."""
        self._cancel(CallRefusal.SLOW_MESSAGE)
        if "taken" not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers["taken"] = loop.call_later(TAKEN_S, self._give_share)

    def _taken(self) -> None:
        if not self.arrival.is_sending:
            self._give_share()

    def _give_share(self) -> None:
        share, self._share = self._share, None
        if share is not None:
            self._cancel(CallRefusal.SLOW_MESSAGE)
            self._cancel("taken")
            self._shared.arrivals.receiving.give(share)
            self._free("share")  # it may never have been granted

    # --- gRPC's side

    def connected(self, transport: asyncio.Transport) -> None:
        self._grpc = transport
        if self.closed:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WAITING_BYTES_MAX)
        transport.write(b"".join(self._backlog))  # gRPC may end it after the first piece
        self._backlog.clear()
        self._free("grpc")

    def answered(self, view: memoryview) -> None:
        if self.closed or self._tls is None:
            return
        self._meter.sent(view)
        if self._share is not None:
            self._balance()  # gRPC may have ended the call that a large message is for
        while len(view):
            view = view[self._tls.write(view) :]
        self._flush()

    def grpc_is_full(self, full: bool) -> None:
        if full:
            self._hold("grpc")
        else:
            self._free("grpc")

    def grpc_ended(self) -> None:
        self._end()

    def _admitted(self) -> None:
        self._patience.end()
        self._free("admission")
        self._balance()

    # --- what stops and ends it

    def _hold(self, why: str) -> None:
        self._holds.add(why)
        self._transport.pause_reading()

    def _free(self, why: str) -> None:
        self._holds.discard(why)
        if not self._holds and not self.closed:
            self._transport.resume_reading()

    def _within(self, seconds: float, why: CallRefusal) -> None:
        """Close unless `_cancel(why)` comes first."""
        loop = asyncio.get_running_loop()
        self._cancel(why)
        self._timers[why] = loop.call_later(seconds, self.close, why)

    def _go_on_waiting(self) -> None:
        """It is the client's turn to speak. Who has made a call has done so."""
        if self.closed:
            return
        self._patience.go_on()
        if not self._meter.calls:
            self._shared.arrivals.await_word(self.arrival)

    def _cancel(self, name: object) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _end(self) -> None:
        """Either side is done."""
        if self._tls is not None and self._open and not self.closed:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # it would like to read the other side's, which may never come
            self._flush()
        self.close(None)

    def close(self, why: CallRefusal | None) -> None:
        """End both sides. `why` counts as a refusal; there is none at a regular end."""
        if self.closed:
            return
        self.closed = True
        self._patience.end()
        for name in list(self._timers):
            self._cancel(name)
        self._give_share()
        self._backlog.clear()
        arrivals, arrival = self._shared.arrivals, self.arrival
        if why is not None:
            arrivals.refused(arrival.tenant, "connection", why, peer=arrival.address)
        if why is not None:
            self._leave()
        if self._grpc is not None:
            self._grpc.close()
        if why is None:
            self._say_goodbye()
        else:
            self._transport.close()
        asyncio.get_running_loop().call_later(CLOSING_S, self._transport.abort)

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._shared.arrivals.leave(self.arrival)

    def _say_goodbye(self) -> None:
        """Send the end, and drop what the client still says until it has closed. A close with
        unread bytes would be a reset, which can cost the client its last answers."""
        if self._transport.is_closing():
            return
        try:
            self._transport.write_eof()
        except OSError:
            self._transport.close()
        self._transport.resume_reading()
