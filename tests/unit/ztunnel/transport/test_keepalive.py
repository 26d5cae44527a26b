"""Deadlines of tunnels, a share of handshakes for each turn, and options of their sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.transport.keepalive import (
    HANDSHAKE_S,
    HANDSHAKES_PER_TURN_MAX,
    KEEPALIVE_PROBES,
    KEEPALIVE_S,
    LATER_S,
    MUCH_LATER_S,
    PING_EVERY_S,
    STEP_S,
    USER_TIMEOUT_MS,
    Keepalive,
    Pings,
    configure,
)

STRANGER = Tenancy(Kind.SOURCE, "stranger")


class Tunnel:
    def __init__(self, payer: Tenancy | None = None) -> None:
        self.due: list[str] = []
        self.payer = payer or STRANGER

    def on_handshake_due(self) -> None:
        self.due.append("handshake")

    def on_ping_due(self) -> None:
        self.due.append("ping")

    def on_later(self) -> None:
        self.due.append("later")

    def on_bug(self) -> None:
        raise AssertionError


class Rig:
    def __init__(self) -> None:
        self.bugs: list[Served] = []
        self.time = FakeTime()
        self.reactor = Reactor(self.bugs.append, self.time)
        self.keepalive = Keepalive(self.reactor)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.reactor.close()
    assert not made.bugs


def test_a_burst_of_handshakes_is_spread_over_turns(rig: Rig) -> None:
    tunnels = [Tunnel() for _ in range(100)]
    allowed = [each for each in tunnels if rig.keepalive.may_handshake(each)]
    assert allowed == tunnels[:HANDSHAKES_PER_TURN_MAX]
    rig.time.now_s += STEP_S
    rig.reactor.turn(0)
    later = [each for each in tunnels if each.due]
    assert later == tunnels[HANDSHAKES_PER_TURN_MAX : 2 * HANDSHAKES_PER_TURN_MAX]
    assert all(rig.keepalive.may_handshake(each) for each in later)


def test_handshakes_that_wait_have_their_turns_by_payer(rig: Rig) -> None:
    crowd = [Tunnel() for _ in range(100)]
    late = [Tunnel(Tenancy(Kind.SOURCE, "another")) for _ in range(2)]
    for each in (*crowd, *late):
        rig.keepalive.may_handshake(each)
    rig.time.now_s += STEP_S
    rig.reactor.turn(0)
    assert [each.due for each in late] == [["later"], ["later"]]
    newcomer = Tunnel()
    assert not rig.keepalive.may_handshake(newcomer), "others wait"
    assert all(map(rig.keepalive.may_handshake, late)), "it is their turn"
    for each in crowd:
        rig.keepalive.forget(each)
    rig.keepalive.forget(newcomer)
    assert not rig.keepalive.waiting


def test_who_was_of_use_does_not_wait_for_those_who_were_not(rig: Rig) -> None:
    for _ in range(100):
        rig.keepalive.may_handshake(Tunnel())
    known = Tenancy(Kind.SOURCE, "known")
    known.trusted = True
    assert rig.keepalive.may_handshake(Tunnel(known))


def test_while_bytes_move_handshakes_have_a_third_of_the_time(rig: Rig) -> None:
    steps, began_s = 0, rig.time.now_s
    rig.keepalive.moved_s = began_s
    asked = waiting = [Tunnel() for _ in range(1000)]
    while rig.time.now_s < began_s + 0.1:
        done = sum(rig.keepalive.may_handshake(each) for each in asked)
        steps += done
        rig.time.now_s += done * STEP_S + 0.0001
        rig.reactor.turn(0)
        rig.keepalive.moved_s = rig.reactor.now_s
        asked = [each for each in waiting if each.due]
        waiting = [each for each in waiting if not each.due]
    assert 0.2 < steps * STEP_S / 0.1 <= 0.38


def test_a_tunnel_that_is_read_later_is_called_once_and_not_after_its_end(rig: Rig) -> None:
    soon, far, ended = Tunnel(), Tunnel(), Tunnel()
    for tunnel, wait_s in ((soon, 0.01), (far, 3.0), (ended, 0.01)):
        rig.keepalive.later(tunnel, rig.reactor.now_s + wait_s)
    rig.keepalive.forget(ended)
    rig.time.now_s += LATER_S
    rig.reactor.turn(0)
    assert (soon.due, far.due, ended.due) == (["later"], [], [])
    rig.time.now_s += MUCH_LATER_S
    rig.reactor.turn(0)
    assert (soon.due, far.due) == (["later"], ["later"])


def test_each_deadline_reaches_its_tunnel(rig: Rig) -> None:
    tunnel = Tunnel()
    rig.keepalive.handshake.start(tunnel)
    rig.time.now_s += HANDSHAKE_S
    rig.reactor.turn(0)
    rig.keepalive.ping.start(tunnel)
    rig.time.now_s += PING_EVERY_S
    rig.reactor.turn(0)
    assert tunnel.due == ["handshake", "ping"]


def test_one_ping_at_a_time_and_its_silence_is_measured(rig: Rig) -> None:
    pings = Pings(rig.reactor)
    assert pings.silent_s == 0
    assert pings.ask()
    rig.time.now_s += 3
    rig.reactor.turn(0)
    assert not pings.ask()
    assert pings.silent_s == 3
    pings.answered()
    assert pings.silent_s == 0
    assert pings.ask()


def test_a_tunnels_socket_is_probed_and_delays_nothing() -> None:
    with socket.socket() as sock:
        configure(sock)
        options = {
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
            (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): KEEPALIVE_S,
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): KEEPALIVE_S,
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): KEEPALIVE_PROBES,
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): USER_TIMEOUT_MS,
        }
        assert {key: sock.getsockopt(*key) for key in options} == options


def test_a_socket_that_is_not_tcp_is_left_alone() -> None:
    one, other = socket.socketpair()
    with one, other:
        configure(one)
        assert not one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
