"""Handing out what arrives: in pieces while others wait for the same turn."""

from __future__ import annotations

import socket

from tests.support.engine.tunnel_memory import Pair
from ztunnel.loop.turns import SLICE_S
from ztunnel.transport.pace import READ_BYTES_LEAST


def test_a_record_of_tiny_frames_is_handled_in_pieces_while_others_wait(pair: Pair) -> None:
    here, there = pair.stream()
    pair.server._pace.read_bytes = READ_BYTES_LEAST
    pair.server._pace.in_pieces = True
    pair.time.step_s = SLICE_S
    pair.reactor.meet("one")
    pair.reactor.meet("other")
    sent = b"".join(b"%d" % (number % 10) for number in range(3000))
    for each in sent:
        pair.client.session.send_data(here.relay.stream, bytes([each]))
    pair.client.touch()
    got, rests = b"", 0
    for _ in range(2000):
        pair.reactor.turn(0)
        rests += bool(pair.server._rest)
        got += there.received()
    assert rests > 5
    assert got == sent
    pair.time.step_s = 0.0
    here.sock.shutdown(socket.SHUT_WR)
    pair.settle()
    assert there.ended()


def test_small_records_beyond_a_slice_wait_for_the_next_turn_while_others_have_work(
    pair: Pair,
) -> None:
    here, there = pair.stream()
    pair.server._pace.in_pieces = True
    for payer in ("one", "other"):
        pair.reactor.meet(payer)
    sent = bytes(range(200))
    for each in sent:
        pair.client.session.send_data(here.relay.stream, bytes([each]))
        pair.client.out.flush()
    pair.time.step_s = SLICE_S / 10
    got, waited = b"", 0
    for _ in range(400):
        pair.reactor.turn(0)
        waited += pair.server._tls.waiting
        got += there.received()
    assert waited > 3
    assert got == sent
