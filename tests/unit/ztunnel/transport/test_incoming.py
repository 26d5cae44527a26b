"""Handing out what arrives: in pieces while others wait for the same turn."""

from __future__ import annotations

import socket

from tests.support.engine.tunnel_memory import Pair, User, Waiting
from ztunnel.hbone.events import RequestReceived
from ztunnel.loop.turns import SLICE_S
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.pace import READ_BYTES_LEAST
from ztunnel.transport.tunnel import Tunnel


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


class Taker(User):
    """A server that takes each request, and keeps what it hears of it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[int, bytes | str]] = []

    def tunnel_requested(self, tunnel: Tunnel, request: RequestReceived) -> None:
        tunnel.adopt(request.stream, Hears(request.stream.id, self.heard))


class Hears(Waiting):
    def __init__(self, number: int, heard: list[tuple[int, bytes | str]]) -> None:
        self._number = number
        self._heard = heard

    def on_data(self, data: memoryview) -> None:
        self._heard.append((self._number, bytes(data)))

    def on_end(self) -> None:
        self._heard.append((self._number, "end"))

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        pass


def test_requests_beyond_a_slice_wait_for_the_next_turn_with_all_that_follows_them(
    pair: Pair,
) -> None:
    user = pair.server._user = Taker()
    pair.server._pace.in_pieces = True
    for payer in ("one", "other"):
        pair.reactor.meet(payer)
    session, wanted = pair.client.session, list[tuple[int, bytes | str]]()
    for _ in range(8):
        stream = session.request("10.0.0.2:80", [])
        session.send_data(stream, b"of %d" % stream.id, end_stream=True)
        wanted += [(stream.id, b"of %d" % stream.id), (stream.id, "end")]
    pair.client.touch()
    pair.time.step_s = SLICE_S
    most = 0
    for _ in range(100):
        before = len(user.heard)
        pair.reactor.turn(0)
        most = max(most, len(user.heard) - before)
    assert user.heard == wanted
    assert most == 1
    pair.time.step_s = 0.0
