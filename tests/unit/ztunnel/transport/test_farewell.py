"""A socket that is parted with: the rest first, then the end; never for longer than the bound."""

from __future__ import annotations

import socket
from collections import deque

import pytest

from tests.support.clock import FakeClock
from ztunnel.loop.reactor import Reactor
from ztunnel.transport import farewell

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


def test_more_than_the_bound_are_not_waited_for() -> None:
    reactor = Reactor(fail)
    pairs = [socket.socketpair() for _ in range(farewell.FAREWELLS_MAX + 1)]
    for ours, _ in pairs:
        ours.setblocking(False)
        farewell.part(reactor, ours, deque([b"x"]))
    reactor._close_discarded()
    assert [ours.fileno() < 0 for ours, _ in pairs].count(True) == 1
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
