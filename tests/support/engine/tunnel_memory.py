"""Two tunnel ends back to back in one reactor, over a socketpair, with apps as socketpairs."""

from __future__ import annotations

import socket

from control.model.identity import SpiffeId
from tests.support.certificates import Authority
from tests.support.engine.rest import come_to_rest
from ztunnel.hbone.events import RequestReceived
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, SERVER_SETTINGS, Role, SessionSettings
from ztunnel.hbone.stream import Stream
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.tenants.account import Account
from ztunnel.tenants.bounds import FAREWELLS, QUEUED_BYTES
from ztunnel.tenants.portions import Portions, Quota
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.farewell import FAREWELL_S
from ztunnel.transport.keepalive import Keepalive
from ztunnel.transport.relay import StreamRelay
from ztunnel.transport.tls import TlsConnection, TlsContext, expect_one_of, expect_trust_domain
from ztunnel.transport.tunnel import Tunnel

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")


class FakeTime:
    """Monotonic seconds that move only when a test moves them, or by `step_s` at each look."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.step_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def held_bytes(relay: StreamRelay) -> int:
    """Bytes from the peer that the app has not taken yet."""
    waiting = relay._pending
    return 0 if waiting is None else sum(len(piece) for piece in waiting.pieces)


class User:
    """Recorder for the calls that a pool or an inbound side gets."""

    def __init__(self) -> None:
        self.peer: SpiffeId | None = None
        self.requests: list[RequestReceived] = []
        self.draining = False
        self.closed: tuple[TunnelEnd, str] | None = None

    def tunnel_opened(self, tunnel: Tunnel, peer: SpiffeId) -> None:
        self.peer = peer

    def tunnel_requested(self, tunnel: Tunnel, request: RequestReceived) -> None:
        self.requests.append(request)

    def tunnel_freed(self, tunnel: Tunnel) -> None:
        pass

    def tunnel_draining(self, tunnel: Tunnel) -> None:
        self.draining = True

    def tunnel_closed(self, tunnel: Tunnel, end: TunnelEnd, detail: str) -> None:
        self.closed = (end, detail)


class App:
    """The end of a stream that a test holds: a blocking socket and how the relay ended."""

    def __init__(self, reactor: Reactor, tunnel: Tunnel, stream: Stream) -> None:
        self.sock, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.sock.settimeout(0)
        self.ends: list[RelayEnd] = []
        self.relay = StreamRelay(reactor, theirs, tunnel, stream, self.ends.append)

    def received(self) -> bytes:
        """All bytes that wait; b"" also at the end, which `ended` tells apart."""
        data = b""
        try:
            while piece := self.sock.recv(1 << 16):
                data += piece
        except BlockingIOError:
            pass
        return data

    def ended(self) -> bool:
        try:
            return self.sock.recv(1) == b""
        except BlockingIOError:
            return False


class Pair:
    """A client tunnel and a server tunnel that talk to each other."""

    def __init__(
        self,
        authority: Authority,
        *,
        client_settings: SessionSettings = CLIENT_SETTINGS,
        server_settings: SessionSettings = SERVER_SETTINGS,
        expected: SpiffeId = SERVER,
        trust_domain: str = "cluster.local",
        queued: Quota = QUEUED_BYTES,
    ) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.client_user, self.server_user = User(), User()
        timers = self.timers = Keepalive(self.reactor)
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.client = Tunnel(
            self.reactor,
            timers,
            ours,
            TlsConnection(
                TlsContext(authority.issue(str(CLIENT))), False, expect_one_of([expected])
            ),
            Session(Role.CLIENT, client_settings),
            self.client_user,
        )
        self.server = Tunnel(
            self.reactor,
            timers,
            theirs,
            TlsConnection(
                TlsContext(authority.issue(str(SERVER))), True, expect_trust_domain(trust_domain)
            ),
            Session(Role.SERVER, server_settings),
            self.server_user,
        )
        self.portions = Portions(queued)
        self.farewells = Portions(FAREWELLS)
        account = Account(self.portions, Tenancy(Kind.PEER, "one"), self.farewells)
        for tunnel in (self.server, self.client):
            tunnel.pay_with(account)
        self.server.start()
        self.client.start()

    def settle(self) -> int:
        """Run turns until nothing happens any more; the number of turns that did something."""
        return come_to_rest(self.reactor, self.timers, self.time)

    def pass_s(self, seconds: float) -> None:
        self.time.now_s += seconds
        self.settle()

    def stream(self) -> tuple[App, App]:
        """A stream with a relay at both ends."""
        stream = self.client.session.request("10.0.0.2:80", [])
        self.client.touch()
        here = App(self.reactor, self.client, stream)
        self.client.adopt(stream, Waiting(here))
        self.settle()
        request = self.server_user.requests.pop()
        there = App(self.reactor, self.server, request.stream)
        self.server.session.respond(request.stream, 200, (), end_stream=False)
        self.server.touch()
        there.relay.start(None, ready=None, peer_ended=request.ended)
        self.settle()
        return here, there

    def close(self) -> None:
        self.client.close(TunnelEnd.CUT)
        self.server.close(TunnelEnd.CUT)
        self.time.now_s += FAREWELL_S
        self.settle()
        self.reactor.close()
        assert not self.bugs
        assert self.portions.used == self.farewells.used == 0


class Waiting:
    """Owns a stream until the 200."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.reset: int | None = None

    def on_response(self, status: int, ended: bool) -> None:
        assert status == 200
        self._app.relay.start(None, ready=None, peer_ended=ended)

    def on_reset(self, code: int) -> None:
        self.reset = code

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        self._app.ends.append(reason)

    def on_data(self, data: memoryview) -> None:
        raise AssertionError("no data before the response")

    def on_data_run(self, pieces: list[memoryview]) -> None:
        raise AssertionError("no data before the response")

    def on_end(self) -> None:
        pass

    def on_window(self) -> None:
        pass

    def on_bug(self) -> None:
        raise AssertionError("a bug")


def pump(pair: Pair, source: App, target: App, data: bytes) -> bytes:
    """Send all of `data`, and take it out at the other end."""
    got, sent = bytearray(), 0
    while len(got) < len(data):
        if sent < len(data):
            try:
                sent += source.sock.send(data[sent : sent + 200_000])
            except BlockingIOError:
                pass
        before = len(got)
        pair.settle()
        got += target.received()
        assert sent < len(data) or len(got) > before, "it has stopped"
    return bytes(got)


def flood(apps: list[App]) -> None:
    """Fill the socket of each app."""
    for app in apps:
        try:
            while True:
                app.sock.send(bytes(200_000))
        except BlockingIOError:
            pass


def drain(pair: Pair, app: App) -> bytes:
    """Read all that comes for an app until nothing more does."""
    got = b""
    while piece := app.received():
        got += piece
        pair.settle()
    return got
