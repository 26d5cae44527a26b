"""Connections that wait for a turn: by address, bounded, none lost but the oldest of a flood."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest

from control.kit.clock import SystemClock
from control.model.address import Endpoint, parse_address
from tests.support.engine.fake_dialer import FakeDialer
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.connections.accept_queues import AcceptQueues
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.loop.turns import SLICE_S
from ztunnel.mesh.state import State
from ztunnel.tenants.book import Tenants
from ztunnel.tenants.work import LINES_BURST
from ztunnel.transport.keepalive import MUCH_LATER_S

FLOOD, HONEST = (Endpoint(parse_address(each), 1) for each in ("192.0.2.66", "192.0.2.7"))
WORK_S = SLICE_S / 2


class Rig:
    """Queues, and itself as the listener that takes them."""

    def __init__(self) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.engine = Engine(
            self.reactor,
            SystemClock(),
            State(),
            EngineConfig(),
            dialer=FakeDialer(),
            access_log=None,
            ask_certificate=lambda _identity, _waiting: None,
            tenants=Tenants(20_000),
        )
        self.arrivals = AcceptQueues(self.engine)
        self.taken: list[Endpoint] = []
        self.sockets: list[socket.socket] = []

    def take(self, sock: socket.socket, client: Endpoint) -> None:
        self.taken.append(client)
        self.time.now_s += WORK_S
        sock.close()

    def crowd(self) -> None:
        for payer in (object(), object()):
            self.reactor.meet(payer)

    def arrive(self, client: Endpoint, count: int = 1) -> None:
        for _ in range(count):
            sock = socket.socket()
            self.sockets.append(sock)
            self.arrivals.arrived(self, sock, client)

    def settle(self) -> None:
        for _ in range(10_000):
            if not self.arrivals._sources:
                return
            self.crowd()
            self.reactor.turn(0)
        raise AssertionError("some are never taken")


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for each in made.sockets:
        each.close()
    made.reactor.close()
    assert not made.bugs


def test_nobody_waits_while_turns_are_not_shared(rig: Rig) -> None:
    rig.arrive(FLOOD, 3)
    assert rig.taken == [FLOOD] * 3


def test_one_connection_does_not_wait_for_the_hundreds_of_another_address(rig: Rig) -> None:
    rig.crowd()
    rig.arrive(FLOOD, 200)
    rig.arrive(HONEST)
    assert rig.taken == []
    while HONEST not in rig.taken:
        rig.crowd()
        rig.reactor.turn(0)
    assert rig.taken.count(FLOOD) <= 4
    rig.settle()
    assert rig.taken.count(FLOOD) == 200
    assert not rig.arrivals._sources


def test_a_flood_loses_its_oldest_and_others_none(rig: Rig) -> None:
    rig.crowd()
    rig.arrive(FLOOD, 2000)
    rig.arrive(HONEST)
    assert len(rig.arrivals) <= 1024
    assert rig.sockets[0].fileno() == -1 or rig.sockets[0] in rig.reactor._closing
    source = rig.engine.tenants.source(FLOOD.address)
    assert source.refused > 900
    rig.time.now_s = source.not_before_s
    rig.settle()
    assert rig.taken.count(HONEST) == 1


def test_who_owes_waits_until_it_has_paid(rig: Rig) -> None:
    source = rig.engine.tenants.source(FLOOD.address)
    source.not_before_s = rig.time.now_s + MUCH_LATER_S
    rig.arrive(FLOOD, 2)
    rig.crowd()
    rig.reactor.turn(0)
    assert rig.taken == []
    rig.time.now_s = source.not_before_s
    rig.settle()
    assert rig.taken == [FLOOD] * 2


def test_who_owes_and_has_no_room_left_is_refused_with_a_line(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    source = rig.engine.tenants.source(FLOOD.address)
    source.not_before_s = rig.time.now_s + MUCH_LATER_S
    with caplog.at_level(logging.WARNING):
        rig.arrive(FLOOD, 2000)
    assert source.refused > 900
    said = [each for each in caplog.messages if each == "listener.refused"]
    assert len(said) == LINES_BURST
    assert source.left_out == source.refused - LINES_BURST, "the rest is counted"
