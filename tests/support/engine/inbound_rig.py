"""The receiving side of one pod, without a network: apps are dialled when the test says so."""

from __future__ import annotations

import socket

from control.kit.clock import SystemClock
from control.model.address import Endpoint, parse_endpoint
from control.model.identity import SpiffeId
from control.model.policy import (
    Action,
    Clause,
    Match,
    Permit,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
)
from control.model.workload import Service, Workload
from tests.support.certificates import Authority
from tests.support.engine.meshes import entry, mesh, pod, spiffe
from tests.support.engine.rest import come_to_rest
from tests.support.engine.tunnel_memory import FakeTime, User
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.inbound import accept_plaintext
from ztunnel.connections.inbound_tunnel import accept_tunnel
from ztunnel.connections.pod import Pod
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, Role
from ztunnel.hbone.stream import Stream
from ztunnel.loop.reactor import WATCH_BOTH, Reactor
from ztunnel.loop.served import Served
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.roles import Accepted
from ztunnel.tenants.book import Tenants
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.dial import DialDone, DialError
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.farewell import FAREWELL_S
from ztunnel.transport.tls import TlsConnection, TlsContext, expect_one_of
from ztunnel.transport.tunnel import Tunnel

CLIENT = parse_endpoint("10.0.0.1:5000")
APP = parse_endpoint("10.0.0.2:8080")
HBONE = parse_endpoint("10.0.0.2:15008")
PEER = spiffe("client")


def only(account: str, action: Action = Action.ALLOW) -> Policy:
    """A policy of the namespace for callers with this service account."""
    name = StringMatch(StringMatchKind.EXACT, f"cluster.local/ns/shop/sa/{account}")
    rules = (Rule((Clause((Match(principals=(name,)),)),)),)
    return Policy("p", "shop", PolicyScope.NAMESPACE, action, rules)


class FakeDialer:
    """Nobody answers until the test says so."""

    source_not_shown = 0

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self.permits: list[Permit] = []
        self.clients: list[Endpoint] = []
        self.patient: list[bool] = []
        self.abandoned = 0
        self._waiting: list[DialDone] = []

    def leave(self, netns_fd: int) -> None:
        assert netns_fd == -1

    def dial(self, *_: object) -> None:
        raise AssertionError("only apps are dialled here")

    def dial_app(
        self,
        netns_fd: int,
        permit: Permit,
        done: DialDone,
        client: Endpoint,
        patient: bool = False,
        payer: Tenancy | None = None,
    ) -> FakeDialer:
        self.permits.append(permit)
        self.clients.append(client)
        self.patient.append(patient)
        self._waiting.append(done)
        return self

    def abandon(self) -> None:
        self.abandoned += 1

    @property
    def is_dialling(self) -> bool:
        return bool(self._waiting)

    def fail(self, why: DialError = DialError.REFUSED) -> None:
        self._waiting.pop(0)(why)

    def answer(self) -> socket.socket:
        """The app's end of a new connection."""
        app, ours = socket.socketpair()
        for sock in (app, ours):
            sock.setblocking(False)
        self._reactor.watch(ours.fileno(), self, WATCH_BOTH)
        self._waiting.pop(0)(ours)
        return app

    def on_ready(self, events: int) -> None:
        raise AssertionError("a relay has taken over")

    def on_bug(self) -> None:
        raise AssertionError


class Caller:
    """The peer's owner of a stream, which notes everything it hears."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.status: int | None = None
        self.data = b""
        self.ended = False
        self.reset: int | None = None
        self.lost: RelayEnd | None = None

    def on_response(self, status: int, ended: bool) -> None:
        self.status, self.ended = status, ended

    def on_data(self, data: memoryview) -> None:
        self.data += bytes(data)

    def on_data_run(self, pieces: list[memoryview]) -> None:
        self.data += b"".join(pieces)

    def on_end(self) -> None:
        self.ended = True

    def on_reset(self, code: int) -> None:
        self.reset = code

    def on_window(self) -> None:
        pass

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        self.lost = reason

    def on_bug(self) -> None:
        raise AssertionError


class InboundRig:
    """A pod `server` of namespace `shop`, and a peer `client` with a certificate."""

    def __init__(
        self,
        authority: Authority,
        *values: Workload | Service | Policy,
        tenants: Tenants | None = None,
    ) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.dialer = FakeDialer(self.reactor)
        self.asked: list[object] = []
        known = (pod("server", "10.0.0.2"), pod("client", "10.0.0.1"))
        self.engine = Engine(
            self.reactor,
            SystemClock(),
            mesh(*known, *values),
            EngineConfig(),
            dialer=self.dialer,
            access_log=None,
            ask_certificate=lambda identity, _waiting: self.asked.append(identity),
            tenants=tenants,
        )
        self.pod = self.engine.pods["p"] = Pod("p", "server", "shop", "server", -1)
        self.stranger = Pod("s", "stranger", "shop", "stranger", -1)
        self._authority = authority
        self._sockets: list[socket.socket] = []
        self.apps: list[socket.socket] = []  # those to close at the end

    def certify(self) -> None:
        """Give the pod its certificate."""
        material = self._authority.issue(str(spiffe("server")))
        self.engine.credentials.put(spiffe("server"), material)

    def change(self, *values: Workload | Service | Policy | Entry) -> None:
        self.engine.state.apply(
            [
                *(each if isinstance(each, Entry) else entry(each) for each in values),
                Entry(Op.SNAPSHOT),
            ]
        )

    def recheck(self) -> None:
        workload = self.pod.workload(self.engine.state)
        for connection in list(self.pod.inbound):
            connection.recheck(workload)
        self.settle()

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        theirs, ours = socket.socketpair()
        for sock in (theirs, ours):
            sock.setblocking(False)
        self._sockets.append(theirs)
        return theirs, ours

    def plaintext(self, accepted: Endpoint = APP, at: Pod | None = None) -> socket.socket:
        """A connection in plaintext; the client's end."""
        client, ours = self.sockets()
        accept_plaintext(self.engine, at or self.pod, ours, CLIENT, Accepted(accepted))
        self.settle()
        return client

    def silence(self) -> socket.socket:
        """A connection to the HBONE port whose peer says nothing."""
        theirs, ours = self.sockets()
        accept_tunnel(self.engine, self.pod, ours, CLIENT, Accepted(HBONE))
        self.settle()
        return theirs

    def tunnel(self, peer: SpiffeId = PEER, at: Pod | None = None) -> Tunnel:
        """The peer's end of a tunnel to the pod."""
        theirs, ours = self.sockets()
        accept_tunnel(self.engine, at or self.pod, ours, CLIENT, Accepted(HBONE))
        context = TlsContext(self._authority.issue(str(peer)))
        tunnel = Tunnel(
            self.reactor,
            self.engine.keepalive,
            theirs,
            TlsConnection(context, False, expect_one_of([spiffe("server")])),
            Session(Role.CLIENT, CLIENT_SETTINGS),
            User(),
        )
        tunnel.start()
        self.settle()
        return tunnel

    def request(
        self, tunnel: Tunnel, authority: str = "10.0.0.2:8080", *fields: tuple[str, str]
    ) -> Caller:
        """A CONNECT, as far as it comes without an answer of the app."""
        caller = Caller(tunnel.session.request(authority, [], fields))
        tunnel.adopt(caller.stream, caller)
        tunnel.touch()
        self.settle()
        return caller

    def say(self, caller: Caller, tunnel: Tunnel, data: bytes, *, end: bool = False) -> None:
        tunnel.session.send_data(caller.stream, data, end_stream=end)
        tunnel.touch()
        self.settle()

    def settle(self) -> None:
        come_to_rest(self.reactor, self.engine.keepalive, self.time)

    @property
    def refusals(self) -> dict[str, int]:
        return self.engine.counters.refusals

    def close(self) -> None:
        self.engine.remove_pod("p")
        self.settle()
        for sock in (*self._sockets, *self.apps):
            sock.close()
        self.time.now_s += FAREWELL_S
        self.settle()
        self.reactor.close()
        assert not self.bugs
        tenants = self.engine.tenants
        assert tenants.connections.used == tenants.tunnels.used == tenants.queued.used == 0
        assert tenants.farewells.used == 0
        assert len(tenants.idle) == len(tenants.handshakes) == 0


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
