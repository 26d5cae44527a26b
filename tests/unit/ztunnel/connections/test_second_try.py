"""Each way to lose a peer, at each stage of a connection: tried once more, or ended."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from control.kit.clock import SystemClock
from control.model.address import Endpoint, parse_address, parse_endpoint
from control.model.workload import NetworkAddress, Port, Service, TunnelProtocol, Workload
from tests.support.certificates import Authority, make_authority
from tests.support.engine.fake_dialer import FakeDialer
from tests.support.engine.tunnel_memory import CLIENT, SERVER, FakeTime, User
from tests.support.engine.tunnel_mesh import address_entry, mesh_state
from ztunnel.connections.engine import LOOK_S, RESPONSE_S, SILENT_S, Engine, EngineConfig
from ztunnel.connections.outbound import accept_outbound
from ztunnel.connections.pod import Pod
from ztunnel.connections.pool import PROBATION_S
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role
from ztunnel.loop.reactor import WATCH_BOTH, Reactor
from ztunnel.loop.served import Served
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.entries import Entry, Op
from ztunnel.telemetry.access_log import TEXT, AccessLog
from ztunnel.transport.dial import DialError
from ztunnel.transport.ends import TunnelEnd
from ztunnel.transport.keepalive import HANDSHAKE_S, STEP_S
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
        self.reactor.watch(ours.fileno(), _Taken(), WATCH_BOTH)
        peer = Peer(self, target, theirs)
        done(ours)
        self.settle()
        return peer

    def apply(self, *entries: Entry) -> None:
        for uid in self.engine.state.apply(entries).moved:
            self.engine.pool.retire(uid)
        self.settle()

    def settle(self) -> None:
        for _ in range(1000):
            waits = self.engine.keepalive.waiting
            before = self.reactor.served
            self.reactor.turn(0)
            if waits:
                self.time.now_s += STEP_S
                continue
            if self.reactor.served == before:
                return
        raise AssertionError("never at rest")

    def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.time.now_s += 1
            self.settle()

    @property
    def moved(self) -> int:
        return self.engine.counters.engine.get("connections_moved", 0)


class _Taken:
    def on_ready(self, events: int) -> None:
        raise AssertionError("the tunnel has taken over")

    def on_bug(self) -> None:
        raise AssertionError("a bug")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[Rig]:
    made = Rig(authority)
    yield made
    made.engine.remove_pod("client")
    for sock in made.apps:
        sock.close()
    made.settle()
    made.reactor.close()
    assert not made.bugs


def is_closed(app: socket.socket) -> bool:
    try:
        return app.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def _cut(rig: Rig, peer: Peer) -> None:
    peer.cut()


def _silent(rig: Rig, peer: Peer) -> None:
    peer.fall_silent()
    rig.pass_s(LOOK_S + SILENT_S + LOOK_S)


def _replaced(rig: Rig, peer: Peer) -> None:
    """Another pod has the address, then the old one is gone; the link to it is dead."""
    peer.fall_silent()
    rig.apply(address_entry(replace(OLD, uid="fresh", name="fresh")))
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    rig.pass_s(LOOK_S)


WAYS: dict[str, Callable[[Rig, Peer], None]] = {
    "cut": _cut,
    "silent": _silent,
    "replaced": _replaced,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("warm", [False, True], ids=["fresh tunnel", "pooled tunnel"])
def test_a_request_without_an_answer_is_made_once_more(rig: Rig, way: str, warm: bool) -> None:
    if warm:
        rig.accept()
        peer = rig.connect()
        peer.answer()
        app = rig.accept(b"question")
    else:
        app = rig.accept(b"question")
        peer = rig.connect()
    assert len(peer.user.requests) == 1
    WAYS[way](rig, peer)
    second = rig.connect()
    assert second.target == peer.target
    assert rig.moved == 1
    second.answer()
    assert not is_closed(app)
    assert rig.engine.counters.refusals.get("tunnel_lost", 0) == 0
    second.cut()
    assert is_closed(app), "an answered connection is not tried again"


@pytest.mark.parametrize("way", ["cut", "silent"])
def test_it_is_tried_once_more_and_no_more(rig: Rig, way: str) -> None:
    app = rig.accept(b"question")
    for _ in range(2):
        peer = rig.connect()
        WAYS[way](rig, peer)
    rig.pass_s(RESPONSE_S)
    assert is_closed(app)
    assert rig.moved == 1
    assert rig.dialer.dials == []


@pytest.mark.parametrize("way", WAYS)
def test_an_open_connection_is_never_made_again(rig: Rig, way: str) -> None:
    app = rig.accept(b"question")
    peer = rig.connect()
    peer.answer()
    WAYS[way](rig, peer)
    rig.pass_s(30)
    assert is_closed(app)
    assert rig.moved == 0
    assert rig.dialer.dials == []


def test_a_peer_that_lives_but_whose_app_is_slow_keeps_the_request(rig: Rig) -> None:
    app = rig.accept()
    peer = rig.connect()
    rig.pass_s(RESPONSE_S - 2)
    assert rig.moved == 0
    peer.answer()
    assert not is_closed(app)


def test_a_lost_endpoint_is_not_drawn_again(rig: Rig) -> None:
    rig.destination = VIP
    for _ in range(8):
        app = rig.accept(b"question")
        (first, done), *_ = rig.dialer.dials
        rig.dialer.dials.clear()
        done(DialError.TIMEOUT)
        rig.settle()
        ((second, done),) = rig.dialer.dials
        assert {first.address, second.address} == {ONE.addresses[0], TWO.addresses[0]}
        rig.dialer.dials.clear()
        done(DialError.TIMEOUT)
        rig.settle()
        assert is_closed(app)
        assert rig.dialer.dials == []


def test_an_endpoint_of_another_identity_is_left_for_one_that_is_who_it_should_be(
    rig: Rig, authority: Authority
) -> None:
    """Its address may be another pod's by now, and the news of it under way."""
    rig.destination = VIP
    right, rig.server_context = rig.server_context, TlsContext(authority.issue(str(CLIENT)))
    app = rig.accept(b"question")
    first = rig.connect()
    rig.server_context = right
    second = rig.connect()
    assert {first.target.address, second.target.address} == {ONE.addresses[0], TWO.addresses[0]}
    second.answer()
    assert not is_closed(app)


def test_an_endpoint_whose_ztunnel_is_stopped_is_left_after_the_handshakes_time(rig: Rig) -> None:
    rig.destination = VIP
    app = rig.accept(b"question")
    target, done = rig.dialer.dials.pop(0)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    rig.apps.append(theirs)
    rig.reactor.watch(ours.fileno(), _Taken(), WATCH_BOTH)
    done(ours)
    rig.pass_s(HANDSHAKE_S + 1)
    second = rig.connect()
    assert second.target != target
    second.answer()
    assert not is_closed(app)


def test_a_peer_that_cannot_be_reached_at_its_own_address_fails_at_once(rig: Rig) -> None:
    app = rig.accept()
    rig.dialer.dials.pop()[1](DialError.REFUSED)
    rig.settle()
    assert is_closed(app)
    assert rig.moved == 0


def test_an_address_that_left_the_mesh_is_no_reason_for_plaintext(rig: Rig) -> None:
    app = rig.accept(b"question")
    peer = rig.connect()
    peer.fall_silent()
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    rig.pass_s(PROBATION_S + 1)
    assert is_closed(app)
    assert rig.dialer.dials == []


def test_the_tunnels_of_a_pod_are_not_those_of_the_next_at_its_address(rig: Rig) -> None:
    """Nor does a line name the pod that has the address now."""
    old_app = rig.accept()
    peer = rig.connect()
    peer.answer()
    rig.apply(address_entry(replace(OLD, uid="fresh", name="fresh")))
    rig.accept()
    fresh = rig.connect()
    assert fresh.tunnel is not peer.tunnel
    fresh.answer()
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    assert not is_closed(old_app), "it lives: what is open may finish"
    peer.cut()
    (line,) = [each for each in rig.lines if "complete" in each]
    assert "dst.workload=old" in line
    retired = [each["workload"] for each in rig.engine.pool.view() if each["retired"]]
    assert retired == []


def test_an_idle_tunnel_goes_with_its_workload(rig: Rig) -> None:
    rig.accept()
    rig.connect().answer(401)
    assert rig.engine.pool.tunnels == 1
    rig.apply(address_entry(replace(OLD, addresses=(parse_address("10.0.0.9"),))))
    assert rig.engine.pool.tunnels == 0
    assert rig.engine.pool.view() == []


def test_a_dial_to_a_workload_that_goes_is_given_up(rig: Rig) -> None:
    app = rig.accept()
    rig.apply(address_entry(replace(OLD, uid="fresh", name="fresh")))
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    assert len(rig.dialer.dials) == 1
    rig.connect().answer()
    assert not is_closed(app)


def test_a_gone_workload_that_lives_on_keeps_its_open_connections(rig: Rig) -> None:
    app = rig.accept()
    peer = rig.connect()
    peer.answer()
    rig.apply(Entry(Op.REMOVE_ADDRESS, "old"))
    rig.pass_s(3 * PROBATION_S)
    assert not is_closed(app)
    assert rig.engine.pool.tunnels == 1
