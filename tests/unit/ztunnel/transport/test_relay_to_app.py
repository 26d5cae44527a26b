"""Bytes for an app: order, those that it does not take, and whom that stops."""

from __future__ import annotations

import socket

from tests.support.certificates import Authority
from tests.support.engine.tunnel_memory import Pair, drain, held_bytes, pump
from ztunnel.hbone.settings import SessionSettings
from ztunnel.tenants.portions import Quota
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.keepalive import LATER_S
from ztunnel.transport.scratch import (
    READ_BYTES_MAX,
)
from ztunnel.transport.sockets import GATHERED_BYTES_MAX, PIECES_MAX


def test_pieces_that_an_app_does_not_take_stay_whole_and_in_order(pair: Pair) -> None:
    """More pieces than one system call takes, to a socket with hardly any room."""
    here, there = pair.stream()
    there.relay._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    pieces = [b"%03d" % number * 100 for number in range(3 * PIECES_MAX)]
    for piece in pieces:
        pair.client.session.send_data(here.relay.stream, piece)
    pair.client.touch()
    pair.settle()
    assert held_bytes(there.relay) > 0
    pump(pair, *pair.stream(), b"others overwrite the shared buffers" * 1_000)
    assert drain(pair, there) == b"".join(pieces)
    assert held_bytes(there.relay) == 0


def test_tiny_frames_that_wait_cost_what_they_carry(pair: Pair) -> None:
    """A piece of memory for each would cost 50 times as much."""
    here, there = pair.stream()
    there.relay._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    sent = 200_000
    for start in range(0, sent, 1000):
        for number in range(start, start + 1000):
            pair.client.session.send_data(here.relay.stream, b"%d" % (number % 10))
        pair.client.touch()
        pair.settle()
    held = held_bytes(there.relay)
    assert held > sent // 2
    assert pair.portions.used == held
    assert len(there.relay._pending.pieces) <= 2 + held // GATHERED_BYTES_MAX
    assert drain(pair, there) == b"".join(b"%d" % (number % 10) for number in range(sent))
    assert pair.portions.used == 0


def test_a_tight_account_leaves_bytes_in_the_peers_hands(authority: Authority) -> None:
    pair = Pair(authority, queued=Quota(4, total=300_000, floor=1))
    pair.settle()
    here, there = pair.stream()
    sent = 0
    for _ in range(100):
        try:
            sent += here.sock.send(bytes(100_000))
        except BlockingIOError:
            pass
        pair.settle()
    tunnel = pair.server
    assert tunnel.account.tight
    assert held_bytes(there.relay) < 300_000 + READ_BYTES_MAX
    got = 0
    for _ in range(500):
        got += len(there.received())
        pair.pass_s(LATER_S)
    assert got == sent
    assert not tunnel.account.tight
    pair.close()


def test_a_peer_that_left_while_its_account_is_tight_is_noticed(authority: Authority) -> None:
    pair = Pair(authority, queued=Quota(4, total=1000, floor=1))
    pair.settle()
    here, there = pair.stream()
    for _ in range(100):
        try:
            here.sock.send(bytes(100_000))
        except BlockingIOError:
            pass
        pair.settle()
    assert pair.server.account.tight
    pair.client.close(TunnelEnd.CUT)
    pair.pass_s(LATER_S)
    pair.pass_s(LATER_S)
    assert pair.server.closed
    assert there.ends == [RelayEnd.TUNNEL_LOST]
    assert pair.portions.used == 0
    pair.close()


def test_an_end_waits_for_the_bytes_before_it(pair: Pair) -> None:
    here, there = pair.stream()
    there.relay._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    here.sock.send(bytes(100_000))
    here.sock.shutdown(socket.SHUT_WR)
    pair.settle()
    assert held_bytes(there.relay) > 0
    assert len(drain(pair, there)) == 100_000
    assert there.ended()


def test_an_app_that_does_not_read_stops_the_sender_and_nobody_else(authority: Authority) -> None:
    window = 64 * 1024
    pair = Pair(authority, server_settings=SessionSettings(initial_window_bytes=window))
    pair.settle()
    slow_here, slow_there = pair.stream()
    here, there = pair.stream()
    sent = 0
    for _ in range(100):
        try:
            sent += slow_here.sock.send(bytes(100_000))
        except BlockingIOError:
            pass
        pair.settle()
    assert held_bytes(slow_there.relay) <= window
    assert pair.settle() == 0, "a blocked stream costs no turns"
    assert pump(pair, here, there, b"x" * 500_000) == b"x" * 500_000
    got = 0
    while piece := slow_there.received():
        got += len(piece)
        pair.settle()
    assert got == sent
    pair.close()


def test_an_app_that_does_not_read_holds_one_window_of_a_bulk_transfer_at_most(pair: Pair) -> None:
    window = pair.server.session.settings.initial_window_bytes
    here, there = pair.stream()
    sent = 0
    for _ in range(200):
        try:
            sent += here.sock.send(bytes(400_000))
        except BlockingIOError:
            pass
        pair.reactor.turn(0)
    assert window // 2 < held_bytes(there.relay) <= window
    assert here.relay.from_app_bytes <= window + there.relay.to_app_bytes
    assert pair.settle() == 0, "a blocked stream costs no turns"
    got = 0
    while piece := there.received():
        got += len(piece)
        pair.settle()
    assert got == sent
