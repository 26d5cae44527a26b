"""Accepting: some each turn, a pause without descriptors, and clients that have left already."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest

from control.kit.clock import SystemClock
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.listeners import PAUSE_S, Listener, Pauses
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.loop.turns import SLICE_S
from ztunnel.mesh.state import State
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.tenants.work import WORK_BURST_S
from ztunnel.transport.dial import Dialer

OTHER = Tenancy(Kind.POD, "shop/other")


class Rig:
    """A listener with one client in its queue."""

    def __init__(self) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.engine = Engine(
            self.reactor,
            SystemClock(),
            State(),
            EngineConfig(),
            dialer=Dialer(self.reactor),
            access_log=None,
            ask_certificate=lambda _identity, _waiting: None,
        )
        self.taken: list[socket.socket] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.listener = Listener(
            self.engine,
            Pauses(self.engine),
            self.socket,
            "outbound",
            lambda sock, _peer: self.taken.append(sock),
        )
        self.client = socket.create_connection(self.socket.getsockname())

    def pause(self) -> None:
        self.time.now_s += PAUSE_S
        self.reactor.turn(0)
        self.reactor.turn(0)

    @property
    def counts(self) -> dict[str, int]:
        return self.engine.counters.engine


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for sock in (*made.taken, made.socket, made.client):
        sock.close()
    made.reactor.close()
    assert not made.bugs


def test_what_is_accepted_does_not_delay_small_writes_and_never_blocks(rig: Rig) -> None:
    rig.reactor.turn(5)
    (sock,) = rig.taken
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not sock.getblocking()


def test_out_of_descriptors_it_pauses_and_then_goes_on(rig: Rig) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, limits[1]))
    try:
        rig.reactor.turn(5)
        before = rig.reactor.served
        rig.reactor.turn(0)
        assert rig.reactor.served == before, "it must not spin"
        assert rig.counts == {"accept_paused_no_descriptors": 1}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    rig.pause()
    assert len(rig.taken) == 1


def test_at_the_limit_for_connections_the_kernels_queue_holds_the_rest(rig: Rig) -> None:
    share = rig.engine.tenants.connections
    share.add(OTHER, share.total)
    rig.reactor.turn(5)
    rig.pause()
    assert rig.taken == []
    assert rig.counts == {"accept_paused_too_many_connections": 2}
    share.give(OTHER)
    rig.pause()
    assert len(rig.taken) == 1


def test_a_pod_over_its_share_pauses_its_own_listener_only(rig: Rig) -> None:
    share = rig.engine.tenants.connections
    while share.take(OTHER):
        pass
    with socket.create_server(("127.0.0.1", 0)) as full:
        pauses = Pauses(rig.engine)
        taken: list[socket.socket] = []
        Listener(
            rig.engine, pauses, full, "outbound", lambda sock, _peer: taken.append(sock), OTHER
        )
        with socket.create_connection(full.getsockname()):
            rig.reactor.turn(5)
            rig.reactor.turn(0)
            assert len(rig.taken) == 1
            assert taken == []
            for _ in range(share.used // 4):
                share.give(OTHER)
            rig.pause()
            assert len(taken) == 1
            taken[0].close()


def test_a_pod_that_is_only_refused_is_accepted_later(rig: Rig) -> None:
    rig.listener._tenant = OTHER
    rig.engine.tenants.work.spend(OTHER, 2 * WORK_BURST_S, rig.time.now_s)
    rig.reactor.turn(5)
    assert rig.taken == []
    assert rig.counts == {"accept_paused_too_many_refusals": 1}
    rig.time.now_s = OTHER.not_before_s
    rig.pause()
    assert len(rig.taken) == 1


def test_while_others_have_work_a_burst_ends_with_its_slice(rig: Rig) -> None:
    clients = [socket.create_connection(rig.socket.getsockname()) for _ in range(20)]
    rig.reactor.turn(0)
    taken = len(rig.taken)
    for payer in ("one", "other"):
        rig.reactor.meet(payer)
    rig.time.step_s = SLICE_S / 4
    for _ in range(4):
        rig.reactor.turn(0)
        assert len(rig.taken) - taken <= 5
        taken = len(rig.taken)
    assert 1 < taken < 21
    rig.time.step_s = 0.0
    for _ in range(20):
        rig.reactor.turn(0)
    assert len(rig.taken) == 21
    for each in clients:
        each.close()


def test_what_waits_is_taken_before_the_end(rig: Rig) -> None:
    with socket.create_connection(rig.socket.getsockname()):
        rig.listener.take_rest()
        assert len(rig.taken) == 2
        rig.listener.close()
        rig.listener.take_rest()
        assert len(rig.taken) == 2


def test_a_listener_whose_clients_nobody_knows_yet_is_a_stranger_in_turns(rig: Rig) -> None:
    assert rig.listener.payer.stranger
