"""A socket that is parted with: the rest first, then the end; never for longer than the bound."""

from __future__ import annotations

import socket
from collections import deque

import pytest

from tests.support.clock import FakeClock
from ztunnel.loop.reactor import Reactor
from ztunnel.tenants.account import Account
from ztunnel.tenants.bounds import FAREWELLS, QUEUED_BYTES
from ztunnel.tenants.portions import Portions
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.transport import farewell
from ztunnel.transport.ends import RelayEnd

BIG = b"x" * 4_000_000


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def fail(item: object) -> None:
    raise AssertionError(item)


def drain(sock: socket.socket) -> tuple[int, bool]:
    """Bytes that are there, and whether the end is."""
    got = 0
    try:
        while piece := sock.recv(1 << 20):
            got += len(piece)
    except BlockingIOError:
        return got, False
    except ConnectionResetError:
        pass
    return got, True


def test_nothing_to_deliver_ends_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    reactor = Reactor(fail)
    farewell.part(reactor, pair[0])
    reactor.turn(0)
    assert drain(pair[1]) == (0, True)


def test_the_rest_is_delivered_first(pair: tuple[socket.socket, socket.socket]) -> None:
    reactor = Reactor(fail)
    farewell.part(reactor, pair[0], deque([b"a", memoryview(BIG), b"b"]))
    got, ended = 0, False
    while not ended:
        reactor.turn(0.05)
        more, ended = drain(pair[1])
        got += more
    assert got == len(BIG) + 2


def test_who_never_reads_is_waited_for_so_long(pair: tuple[socket.socket, socket.socket]) -> None:
    clock = FakeClock()
    reactor = Reactor(fail, clock.monotonic_s)
    farewell.part(reactor, pair[0], deque([BIG]))
    reactor.turn(0)
    clock.pass_s(farewell.FAREWELL_S / 2)
    reactor.turn(0)
    assert pair[0].fileno() >= 0
    clock.pass_s(farewell.FAREWELL_S)
    reactor.turn(0)
    assert pair[0].fileno() < 0


def test_who_goes_away_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    reactor = Reactor(fail)
    farewell.part(reactor, pair[0], deque([BIG]))
    pair[1].close()
    for _ in range(3):
        reactor.turn(0.05)
    assert pair[0].fileno() < 0


def test_a_tenant_has_so_many_and_leaves_some_for_others() -> None:
    reactor, farewells = Reactor(fail), Portions(FAREWELLS)
    greedy, other = (
        Account(Portions(QUEUED_BYTES), Tenancy(Kind.POD, name), farewells) for name in "ab"
    )
    pairs = [socket.socketpair() for _ in range(FAREWELLS.total + FAREWELLS.floor)]
    payers = [greedy] * FAREWELLS.total + [other] * FAREWELLS.floor
    for (ours, _), payer in zip(pairs, payers, strict=True):
        ours.setblocking(False)
        farewell.part(reactor, ours, deque([b"x"]), payer)
    reactor._close_discarded()
    alive = [payer for (ours, _), payer in zip(pairs, payers, strict=True) if ours.fileno() >= 0]
    assert 0.5 * FAREWELLS.total < alive.count(greedy) < 0.7 * FAREWELLS.total
    assert alive.count(other) == FAREWELLS.floor
    for _, theirs in pairs:
        theirs.close()
    while farewells.used:
        reactor.turn(0.05)
    reactor.close()


def test_the_rest_is_waited_for_as_long_as_it_goes_on() -> None:
    clock, moved = FakeClock(), [0, 0]
    given_up: list[RelayEnd] = []
    reactor = Reactor(fail, clock.monotonic_s)
    made = farewell.Rest(reactor, lambda: (moved[0], moved[1]), given_up.append, RelayEnd.APP_RESET)
    for _ in range(5):
        moved[0] += farewell.REST_BYTES_LEAST
        clock.pass_s(farewell.FAREWELL_S)
        reactor.turn(0)
    assert not given_up
    moved[0] += farewell.REST_BYTES_LEAST - 1
    clock.pass_s(farewell.FAREWELL_S)
    reactor.turn(0)
    assert given_up == [RelayEnd.APP_RESET]
    made.over()
    reactor.close()
