"""A pod's engine in memory, in front of peers that a test answers for, or lets fall silent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from control.kit.clock import SystemClock
from control.model.address import Endpoint, parse_address, parse_endpoint
from control.model.workload import NetworkAddress, Port, Service, TunnelProtocol, Workload
from tests.support.certificates import Authority
from tests.support.engine.fake_dialer import FakeDialer
from tests.support.engine.rest import come_to_rest
from tests.support.engine.tunnel_memory import CLIENT, SERVER, FakeTime, User
from tests.support.engine.tunnel_mesh import mesh_state
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.outbound import accept_outbound
from ztunnel.connections.pod import Pod
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role
from ztunnel.loop.reactor import WATCH_BOTH, Reactor
from ztunnel.loop.served import Served
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.entries import Entry
from ztunnel.telemetry.access_log import TEXT, AccessLog
from ztunnel.transport.ends import TunnelEnd
from ztunnel.transport.tls import TlsConnection, TlsContext, expect_trust_domain
from ztunnel.transport.tunnel import Tunnel

APP = parse_endpoint("10.0.0.1:5000")
WEB = Service(
    "web",
    "demo",
    "web.demo.svc.cluster.local",
    ports=(Port(80, 8080),),
    addresses=(NetworkAddress("", parse_address("10.96.0.1")),),
)
VIP = parse_endpoint("10.96.0.1:80")


def pod(name: str, address: str, account: str = "server", *, web: bool = False) -> Workload:
    return Workload(
        uid=name,
        name=name,
        namespace="demo",
        service_account=account,
        addresses=(parse_address(address),),
        tunnel_protocol=TunnelProtocol.HBONE,
        services={WEB.key: WEB.ports} if web else {},
    )


ME = pod("client", "10.0.0.1", "client")
OLD = pod("old", "10.0.0.2")
ONE, TWO = pod("one", "10.0.0.3", web=True), pod("two", "10.0.0.4", web=True)


class Peer:
    """The other node's end of a tunnel."""

    def __init__(self, rig: Rig, target: Endpoint, sock: socket.socket) -> None:
        self.target = target
        self.user = User()
        self._rig = rig
        self._sock = sock
        tls = TlsConnection(rig.server_context, True, expect_trust_domain("cluster.local"))
        session = Session(Role.SERVER, SERVER_SETTINGS)
        self.tunnel = Tunnel(rig.reactor, rig.engine.keepalive, sock, tls, session, self.user)
        self.tunnel.start()

    def answer(self, status: int = 200) -> None:
        request = self.user.requests.pop()
        self.tunnel.session.respond(request.stream, status, (), end_stream=False)
        self.tunnel.touch()
        self._rig.settle()

    def fall_silent(self) -> None:
        self._rig.reactor.unwatch(self._sock.fileno())

    def cut(self) -> None:
        self.tunnel.close(TunnelEnd.CUT)
        self._rig.settle()


class Rig:
    def __init__(self, authority: Authority) -> None:
        self.bugs: list[Served] = []
        self.time = FakeTime()
        self.reactor = Reactor(self.bugs.append, self.time)
        self.server_context = TlsContext(authority.issue(str(SERVER)))
        self.destination = Endpoint(OLD.addresses[0], 80)
        self.dialer = FakeDialer()
        self.lines: list[str] = []
        self.engine = Engine(
            self.reactor,
            SystemClock(),
            mesh_state(ME, OLD, ONE, TWO, WEB),
            EngineConfig(),
            dialer=self.dialer,
            access_log=AccessLog(SystemClock(), self.lines.append, TEXT),
            ask_certificate=lambda _identity, _waiting: None,
            original_destination=lambda _sock: (self.destination, Hint.NONE),
        )
        self.engine.credentials.put(CLIENT, authority.issue(str(CLIENT)))
        self.pod = self.engine.pods["client"] = Pod("client", "client", "demo", "client", -1)
        self.apps: list[socket.socket] = []

    def accept(self, payload: bytes = b"") -> socket.socket:
        app, ours = socket.socketpair()
        for each in (app, ours):
            each.setblocking(False)
        if payload:
            app.send(payload)
        self.apps.append(app)
        accept_outbound(self.engine, self.pod, ours, APP)
        self.settle()
        return app

    def connect(self) -> Peer:
        """Answer the oldest dial."""
        target, done = self.dialer.dials.pop(0)
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
        self.reactor.watch(ours.fileno(), Taken(), WATCH_BOTH)
        peer = Peer(self, target, theirs)
        done(ours)
        self.settle()
        return peer

    def apply(self, *entries: Entry) -> None:
        for uid in self.engine.state.apply(entries).moved:
            self.engine.pool.retire(uid)
        self.settle()

    def settle(self) -> None:
        come_to_rest(self.reactor, self.engine.keepalive, self.time)

    def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.time.now_s += 1
            self.settle()

    @property
    def moved(self) -> int:
        return self.engine.counters.engine.get("connections_moved", 0)


class Taken:
    def on_ready(self, events: int) -> None:
        raise AssertionError("the tunnel has taken over")

    def on_bug(self) -> None:
        raise AssertionError("a bug")


def is_closed(app: socket.socket) -> bool:
    try:
        return app.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@contextmanager
def made_rig(authority: Authority) -> Iterator[Rig]:
    made = Rig(authority)
    yield made
    made.engine.remove_pod("client")
    for sock in made.apps:
        sock.close()
    made.settle()
    made.reactor.close()
    assert not made.bugs
