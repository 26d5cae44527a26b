"""Fates of an app's connection: refused, sent past the mesh, waiting for a tunnel, abandoned."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from control.kit.clock import SystemClock
from control.model.address import Endpoint, parse_endpoint
from control.model.workload import TunnelProtocol, Workload
from tests.support.certificates import Authority, make_authority
from tests.support.engine.tunnel_memory import CLIENT, FakeTime
from tests.support.engine.tunnel_mesh import address_entry, mesh_state
from ztunnel.connections import lookups
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.newcomers import WAITING_MAX, WORKLOAD_S
from ztunnel.connections.outbound import accept_outbound
from ztunnel.connections.pod import Pod
from ztunnel.connections.sockaddr import Original
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.entries import Entry, Op
from ztunnel.refusals import Reason
from ztunnel.transport.dial import DialDone, DialError
from ztunnel.transport.ends import RelayEnd

APP = parse_endpoint("10.0.0.1:5000")
SERVER = parse_endpoint("10.0.0.2:80")
ELSEWHERE = parse_endpoint("192.0.2.1:443")


def workload(name: str, address: Endpoint) -> Workload:
    return Workload(
        uid=name,
        name=name,
        namespace="demo",
        service_account=name,
        addresses=(address.address,),
        tunnel_protocol=TunnelProtocol.HBONE,
    )


class FakeDialer:
    """Nobody answers until the test says so."""

    source_not_shown = 0

    def __init__(self) -> None:
        self.dials: list[tuple[Endpoint, DialDone]] = []
        self.abandoned = 0

    def dial(self, netns_fd: int, target: Endpoint, done: DialDone, _: object = None) -> FakeDialer:
        self.dials.append((target, done))
        return self

    def dial_app(self, *_: object, **_more: object) -> None:
        raise AssertionError("outbound dials no app of its own node")

    def abandon(self) -> None:
        self.abandoned += 1

    def leave(self, netns_fd: int) -> None:
        assert netns_fd == -1


class Rig:
    def __init__(self, authority: Authority) -> None:
        self.bugs: list[Served] = []
        self.asked: list[list[str]] = []
        self.time = FakeTime()
        self.reactor = Reactor(self.bugs.append, self.time)
        self.destination: Endpoint | None = SERVER
        self.dialer = FakeDialer()
        self.engine = Engine(
            self.reactor,
            SystemClock(),
            mesh_state(workload("client", APP), workload("server", SERVER)),
            EngineConfig(),
            dialer=self.dialer,
            access_log=None,
            ask_certificate=lambda _identity, _waiting: None,
            ask_address=lambda _pod, names, _spare: self.asked.append(names),
            original_destination=lambda _sock: self.original,
        )
        self.engine.credentials.put(CLIENT, authority.issue(str(CLIENT)))
        self.pod = self.add("client")
        self.sockets: list[socket.socket] = []

    @property
    def original(self) -> Original | None:
        return None if self.destination is None else (self.destination, Hint.NONE)

    def add(self, name: str) -> Pod:
        pod = self.engine.pods[name] = Pod(name, name, "demo", name, -1)
        return pod

    def accept(self, pod: Pod | None = None) -> socket.socket:
        app, ours = socket.socketpair()
        ours.setblocking(False)
        app.setblocking(False)
        self.sockets.append(app)
        accept_outbound(self.engine, pod or self.pod, ours, APP)
        self.turns()
        return app

    def turns(self) -> None:
        for _ in range(3):
            self.reactor.turn(0)

    @property
    def refusals(self) -> dict[str, int]:
        return self.engine.counters.refusals

    @property
    def waiting(self) -> int:
        return sum(len(slot.waiters) for slot in self.engine.pool._slots.values())


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[Rig]:
    made = Rig(authority)
    yield made
    for sock in made.sockets:
        sock.close()
    made.reactor.close()
    assert not made.bugs


def is_closed(app: socket.socket) -> bool:
    try:
        return app.recv(1) == b""
    except BlockingIOError:
        return False


def test_without_the_kernels_word_nothing_is_dialled(rig: Rig) -> None:
    rig.destination = None
    assert is_closed(rig.accept())
    assert rig.refusals == {"no_original_destination": 1}
    assert rig.dialer.dials == []


def test_a_connection_to_the_listener_itself_is_refused(rig: Rig) -> None:
    rig.pod.own_ports.add(15001)
    rig.destination = Endpoint(APP.address, 15001)
    assert is_closed(rig.accept())
    assert rig.refusals == {"recursion": 1}


def test_a_pod_that_the_control_plane_does_not_know_reaches_nobody(rig: Rig) -> None:
    app = rig.accept(rig.add("stranger"))
    assert not is_closed(app)
    rig.time.now_s += WORKLOAD_S
    rig.turns()
    assert is_closed(app)
    assert rig.refusals == {"unknown_local_workload": 1}


def test_a_pod_that_has_just_started_waits_for_the_control_planes_word(rig: Rig) -> None:
    late, address = rig.add("late"), parse_endpoint("10.0.0.9:80")
    apps = [rig.accept(late) for _ in range(WAITING_MAX)]
    assert is_closed(rig.accept(late)), "so many of a pod wait, and no more"
    assert rig.dialer.dials == []
    rig.engine.state.apply([address_entry(workload("late", address))])
    rig.engine.workloads_came()
    rig.turns()
    assert not any(is_closed(app) for app in apps)
    assert rig.engine.connections == rig.waiting == WAITING_MAX
    rig.engine.remove_pod("late")
    rig.turns()
    assert all(is_closed(app) for app in apps)


def test_what_waits_ends_with_its_pod(rig: Rig) -> None:
    app = rig.accept(rig.add("late"))
    rig.engine.remove_pod("late")
    rig.turns()
    assert is_closed(app)


def test_what_is_outside_the_mesh_is_dialled_as_it_is(rig: Rig) -> None:
    rig.destination = ELSEWHERE
    app = rig.accept()
    ((target, done),) = rig.dialer.dials
    assert target == ELSEWHERE
    done(DialError.REFUSED)
    rig.turns()
    assert is_closed(app)
    assert rig.refusals == {"connect_failed": 1}
    assert rig.engine.connections == 0


def test_what_is_in_the_mesh_goes_to_its_tunnel_port_and_shares_the_dial(rig: Rig) -> None:
    apps = [rig.accept(), rig.accept()]
    ((target, done),) = rig.dialer.dials
    assert target == Endpoint(SERVER.address, 15008)
    assert rig.waiting == 2
    done(DialError.UNREACHABLE)
    rig.turns()
    assert all(is_closed(app) for app in apps)
    assert rig.refusals == {"connect_failed": 2}


def test_an_app_that_leaves_no_longer_waits_for_its_tunnel(rig: Rig) -> None:
    rig.accept().close()
    rig.accept()
    rig.turns()
    assert rig.waiting == 1
    assert rig.refusals == {"app_left": 1}
    assert rig.engine.connections == 1


def test_an_app_that_leaves_takes_its_own_dial_along(rig: Rig) -> None:
    rig.destination = ELSEWHERE
    rig.accept().close()
    rig.turns()
    assert rig.dialer.abandoned == 1
    assert rig.engine.connections == 0


def test_an_app_that_only_listens_from_now_on_still_waits(rig: Rig) -> None:
    rig.accept().shutdown(socket.SHUT_WR)
    rig.turns()
    assert rig.waiting == 1
    assert rig.refusals == {}


def on_demand(rig: Rig, *known: str) -> None:
    rig.engine.state.apply([Entry(Op.ON_DEMAND), *(Entry(Op.KNOWN, each) for each in known)])


def test_an_unknown_address_is_asked_for_and_nothing_is_dialled_before_the_answer(rig: Rig) -> None:
    on_demand(rig)
    rig.destination = ELSEWHERE
    app = rig.accept()
    assert (rig.asked, rig.dialer.dials) == ([["/192.0.2.1"]], [])
    rig.engine.state.apply([Entry(Op.KNOWN, "/192.0.2.1")])
    rig.engine.lookups.told(["/192.0.2.1"])
    assert [target for target, _ in rig.dialer.dials] == [ELSEWHERE], "outside the mesh"
    assert not is_closed(app)
    rig.accept()
    assert len(rig.asked) == 1
    assert rig.pod.dialled == {ELSEWHERE}


def test_an_address_of_the_mesh_goes_by_a_tunnel_once_it_is_known(rig: Rig) -> None:
    on_demand(rig)
    rig.accept()
    assert rig.waiting == 0
    rig.engine.state.apply([Entry(Op.KNOWN, "/10.0.0.2")])
    rig.engine.lookups.told(["/10.0.0.2"])
    assert rig.waiting == 1


def test_without_an_answer_in_time_it_is_refused_and_not_let_past_the_mesh(rig: Rig) -> None:
    on_demand(rig)
    rig.destination = ELSEWHERE
    app = rig.accept()
    rig.time.now_s += lookups.ANSWER_S
    rig.turns()
    assert is_closed(app)
    assert rig.refusals == {"address_timeout": 1}
    assert rig.dialer.dials == []


def test_an_app_that_gives_up_while_it_waits_frees_its_place(rig: Rig) -> None:
    on_demand(rig)
    app = rig.accept()
    app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    app.close()
    rig.turns()
    for connection in list(rig.pod.outbound):
        connection.abort(RelayEnd.APP_RESET)
    assert len(rig.engine.lookups) == 0
    assert not rig.pod.outbound


def test_too_many_that_wait_are_refused_at_once(rig: Rig) -> None:
    on_demand(rig)
    apps = [rig.accept() for _ in range(lookups.WAITING_MAX + 1)]
    assert is_closed(apps[-1])
    assert not is_closed(apps[0])
    assert rig.refusals == {"lookups_max": 1}
    rig.engine.lookups.failed("client", ["/10.0.0.2"], Reason.ADDRESS_UNASKED)
    assert rig.refusals == {"lookups_max": 1, "address_unasked": lookups.WAITING_MAX}
