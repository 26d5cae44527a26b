"""Socket ↔ socket: bytes, half-closes, resets, back-pressure, fairness."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import WATCH_BOTH, Reactor
from ztunnel.loop.served import Served
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.farewell import FAREWELL_S
from ztunnel.transport.passthrough import SocketRelay
from ztunnel.transport.scratch import TURN_BYTES_MAX


class Rig:
    def __init__(self) -> None:
        self.bugs: list[Served] = []
        self.time = FakeTime()
        self.reactor = Reactor(self.bugs.append, self.time)
        self.client, near = socket.socketpair()
        self.server, far = socket.socketpair()
        for sock in (self.client, near, self.server, far):
            sock.setblocking(False)
        self.ends: list[RelayEnd] = []
        self.relay = SocketRelay(self.reactor, near, far, self.ends.append)
        self.reactor.watch(far.fileno(), self, WATCH_BOTH)  # as a dial leaves it
        self.relay.start()

    def on_ready(self, events: int) -> None:
        raise AssertionError("the relay has taken over")

    def on_bug(self) -> None:
        raise AssertionError("a bug")

    def settle(self) -> int:
        for turn in range(2000):
            before = self.reactor.served
            self.reactor.turn(0)
            if self.reactor.served == before:
                return turn
        raise AssertionError("never at rest")


def read(sock: socket.socket) -> bytes | None:
    """None: nothing there; b"": the end."""
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return None


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.relay.abort(RelayEnd.DRAINED)
    made.client.close()
    made.server.close()
    made.reactor.close()
    assert not made.bugs


def test_bytes_go_both_ways_and_are_counted(rig: Rig) -> None:
    rig.client.send(b"question")
    rig.server.send(b"answer!")
    rig.settle()
    assert read(rig.server) == b"question"
    assert read(rig.client) == b"answer!"
    assert rig.relay.moved_bytes() == (8, 7)


def test_each_half_ends_by_itself(rig: Rig) -> None:
    rig.client.send(b"last")
    rig.client.shutdown(socket.SHUT_WR)
    rig.settle()
    assert read(rig.server) == b"last"
    assert read(rig.server) == b""
    assert rig.ends == []
    rig.server.send(b"still")
    rig.settle()
    assert read(rig.client) == b"still"
    rig.server.shutdown(socket.SHUT_WR)
    rig.settle()
    assert read(rig.client) == b""
    assert rig.ends == [RelayEnd.FINISHED]


def test_a_reader_that_stops_stops_the_writer_and_costs_no_turns(rig: Rig) -> None:
    data = os.urandom(4_000_000)
    sent = 0
    for _ in range(50):
        try:
            sent += rig.client.send(data[sent:])
        except BlockingIOError:
            pass
        rig.settle()
    assert sent < len(data)
    assert rig.settle() == 0
    got = bytearray()
    while (piece := read(rig.server)) is not None:
        got += piece
        rig.settle()
    assert bytes(got) == data[:sent]


def test_the_end_waits_for_what_the_reader_has_not_taken(rig: Rig) -> None:
    sent = 0
    for _ in range(50):
        try:
            sent += rig.client.send(bytes(1 << 18))
        except BlockingIOError:
            pass
        rig.settle()
    rig.client.shutdown(socket.SHUT_WR)
    rig.settle()
    got = 0
    while piece := read(rig.server):
        got += len(piece)
        rig.settle()
    assert got == sent
    assert read(rig.server) == b""


def test_one_side_gets_a_bounded_share_of_a_turn(rig: Rig) -> None:
    rig.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    try:
        while True:
            rig.client.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    rig.reactor.turn(0)
    assert rig.relay.moved_bytes()[0] <= 2 * TURN_BYTES_MAX


def test_abort_ends_both_once(rig: Rig) -> None:
    rig.relay.abort(RelayEnd.POLICY)
    rig.relay.abort(RelayEnd.POLICY)
    rig.settle()
    assert rig.ends == [RelayEnd.POLICY]
    assert read(rig.client) == read(rig.server) == b""


def test_a_side_that_vanishes_takes_the_other_along(rig: Rig) -> None:
    rig.client.send(b"unread by us")
    rig.server.close()
    rig.settle()
    assert rig.ends == [RelayEnd.PEER_RESET]
    assert read(rig.client) == b""


@pytest.mark.parametrize("end", [RelayEnd.APP_RESET, RelayEnd.PEER_RESET])
def test_a_side_that_was_reset_is_not_kept_by_one_that_reads_nothing(
    rig: Rig, end: RelayEnd
) -> None:
    left, right = rig.client, rig.server
    near = rig.relay._sides[0]
    if end is RelayEnd.PEER_RESET:
        left, right, near = right, left, rig.relay._sides[1]
    for _ in range(50):
        try:
            left.send(bytes(1 << 18))
        except BlockingIOError:
            pass
        rig.settle()
    near.sock.send(b"never read, so that closing is a reset")
    left.close()
    rig.settle()
    assert rig.ends == [], "its last bytes may still go on"
    rig.time.now_s += FAREWELL_S
    rig.settle()
    assert rig.ends == [end]
