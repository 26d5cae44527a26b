"""Two tunnel ends back to back: TLS, streams, windows, ends, deadlines; no network."""

from __future__ import annotations

import os
import socket
import weakref
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.engine.tunnel_memory import CLIENT, SERVER, Pair, User, flood, pump
from tests.support.peers.openssl import LIBRARY, OpensslClient
from ztunnel.hbone.frames import ACK, PING, PREFACE, SETTINGS, pack_frame
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role, SessionSettings
from ztunnel.refusals import Reason
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.keepalive import (
    HANDSHAKE_S,
    PING_EVERY_S,
    PING_TIMEOUT_S,
)
from ztunnel.transport.outgoing import OUTGOING_BYTES_MAX
from ztunnel.transport.pace import SILENT_BURST, SILENT_PER_S
from ztunnel.transport.tls import TlsConnection, TlsContext, expect_trust_domain
from ztunnel.transport.tunnel import Tunnel

SMALL = SessionSettings(initial_window_bytes=1000, connection_window_bytes=65_535)


def test_both_ends_learn_who_the_other_is(pair: Pair) -> None:
    assert pair.client_user.peer == SERVER
    assert pair.server_user.peer == CLIENT


def test_bytes_go_both_ways(pair: Pair) -> None:
    here, there = pair.stream()
    assert pump(pair, here, there, b"question") == b"question"
    assert pump(pair, there, here, b"answer") == b"answer"


def test_three_megabytes_arrive_whole(pair: Pair) -> None:
    here, there = pair.stream()
    data = os.urandom(3_000_000)
    assert pump(pair, here, there, data) == data
    assert pump(pair, there, here, data) == data


def test_a_peer_with_a_small_window_gets_everything_in_small_pieces(
    authority: Authority,
) -> None:
    pair = Pair(authority, server_settings=SMALL)
    pair.settle()
    here, there = pair.stream()
    data = os.urandom(100_000)
    assert pump(pair, here, there, data) == data
    pair.close()


def test_a_wrong_server_identity_ends_the_handshake_before_any_frame(authority: Authority) -> None:
    pair = Pair(authority, expected=CLIENT)
    pair.settle()
    assert pair.client_user.closed is not None
    assert pair.client_user.closed[0] is TunnelEnd.TLS
    assert pair.client.refusal is Reason.PEER_IDENTITY
    assert pair.server_user.peer is None
    pair.close()


def test_a_wrong_trust_domain_is_told_to_the_client(authority: Authority) -> None:
    pair = Pair(authority, trust_domain="elsewhere")
    pair.settle()
    assert pair.server.refusal is Reason.PEER_TRUST_DOMAIN
    assert pair.client_user.closed is not None
    assert pair.client_user.closed[0] is TunnelEnd.TLS
    pair.close()


def test_a_handshake_that_takes_too_long_is_ended(authority: Authority) -> None:
    pair = Pair(authority)
    pair.time.now_s += HANDSHAKE_S + 1
    pair.reactor.turn(0)
    pair.settle()
    ends = {user.closed and user.closed[0] for user in (pair.client_user, pair.server_user)}
    assert TunnelEnd.HANDSHAKE_TIMEOUT in ends or ends == {None}
    pair.close()


def test_an_answer_to_another_ping_does_not_keep_a_tunnel_alive(pair: Pair) -> None:
    pair.reactor.unwatch(pair.server._sock.fileno())  # it reads nothing any more
    pair.pass_s(PING_EVERY_S)
    pair.server.session.outbound += pack_frame(PING, ACK, 0, b"not ours")
    pair.server.touch()
    pair.settle()
    for _ in range(2):
        pair.pass_s(PING_EVERY_S)
    assert pair.client_user.closed == (TunnelEnd.PING_TIMEOUT, "")


def test_idle_tunnels_ping_and_live_on(pair: Pair) -> None:
    for _ in range(10):
        pair.pass_s(PING_EVERY_S)
    assert pair.client_user.closed is None
    assert pair.server_user.closed is None


def test_a_peer_that_no_longer_answers_is_given_up(pair: Pair) -> None:
    here, _ = pair.stream()
    pair.reactor.unwatch(pair.server._sock.fileno())
    for _ in range(4):
        pair.pass_s(PING_EVERY_S)
    assert pair.client_user.closed == (TunnelEnd.PING_TIMEOUT, "")
    assert here.ends == [RelayEnd.TUNNEL_LOST]
    assert PING_TIMEOUT_S < 4 * PING_EVERY_S


def test_drain_lets_streams_finish_and_then_closes(pair: Pair) -> None:
    here, there = pair.stream()
    pair.server.drain()
    pair.settle()
    assert pair.client_user.draining
    assert not pair.client.session.can_open
    assert pump(pair, here, there, b"late") == b"late"
    here.sock.shutdown(socket.SHUT_WR)
    there.sock.shutdown(socket.SHUT_WR)
    pair.settle()
    assert here.ends == there.ends == [RelayEnd.FINISHED]
    assert pair.client.closed
    assert pair.server.closed


def test_an_idle_tunnel_that_drains_closes_at_once(pair: Pair) -> None:
    pair.client.drain()
    pair.settle()
    assert pair.client.closed
    assert pair.server.closed


def test_a_cut_tunnel_cuts_its_streams_once(pair: Pair) -> None:
    here, there = pair.stream()
    pair.server.close(TunnelEnd.CUT)
    pair.settle()
    assert there.ends == [RelayEnd.TUNNEL_LOST]
    assert here.ends == [RelayEnd.TUNNEL_LOST]


def test_the_outgoing_buffer_is_bounded(pair: Pair) -> None:
    here, _ = pair.stream()
    pair.reactor.unwatch(pair.server._sock.fileno())
    for _ in range(100):
        try:
            here.sock.send(bytes(200_000))
        except BlockingIOError:
            pass
        pair.settle()
    waiting = len(pair.client.session.outbound) + len(pair.client.out.unsent)
    assert waiting <= 3 * OUTGOING_BYTES_MAX
    assert pair.settle() == 0, "a blocked tunnel costs no turns"


@pytest.mark.parametrize("connection_window", [65_535, 16 << 20])
def test_bulk_streams_share_a_tunnel_evenly(authority: Authority, connection_window: int) -> None:
    settings = SessionSettings(connection_window_bytes=connection_window)
    pair = Pair(authority, server_settings=settings)
    pair.settle()
    streams = [pair.stream() for _ in range(4)]
    for _ in range(120):
        for here, _there in streams:
            try:
                here.sock.send(bytes(400_000))
            except BlockingIOError:
                pass
        pair.reactor.turn(0)
        for _here, there in streams:
            there.received()
    moved = [here.relay.from_app_bytes for here, _ in streams]
    assert min(moved) * 2 > max(moved), moved
    pair.close()


def test_small_messages_leave_in_the_turn_they_come_whatever_bulk_there_is(pair: Pair) -> None:
    streams = [pair.stream() for _ in range(4)]
    small_here, small_there = pair.stream()
    bulk = [here for here, _ in streams]
    for _ in range(20):  # until their reads have grown
        flood(bulk)
        pair.reactor.turn(0)
        for _here, there in streams:
            there.received()
    for round_number in range(10):
        flood(bulk)  # its events come first
        small_here.sock.send(b"small")
        pair.reactor.turn(0)
        assert small_here.relay.from_app_bytes == 5 * (round_number + 1), "its own turn"
        for _here, there in streams:
            there.received()
    pair.settle()
    assert small_there.received() == b"small" * 10


class Broken:
    """An owner with a bug."""

    def __init__(self) -> None:
        self.closed = False

    def on_data(self, data: memoryview) -> None:
        raise KeyError("bug")

    def on_bug(self) -> None:
        self.closed = True

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        pass


def test_a_bug_in_one_stream_leaves_the_others_alone(pair: Pair) -> None:
    here, there = pair.stream()
    other, another = pair.stream()
    broken = Broken()
    stream = there.relay.stream
    pair.server.adopt(stream, broken)  # type: ignore[arg-type]  # only what this test needs
    here.sock.send(b"x")
    pair.settle()
    assert broken.closed
    assert pair.bugs == [broken]
    pair.bugs.clear()
    assert pump(pair, other, another, b"fine") == b"fine"


class Counting(socket.socket):
    """Notes how much each send was given."""

    def __init__(self, taken_over: socket.socket) -> None:
        super().__init__(fileno=taken_over.detach())
        self.sends: list[int] = []

    def send(self, data: Any, flags: int = 0) -> int:
        self.sends.append(len(data))
        return super().send(data, flags)


def test_a_turn_writes_small_messages_before_the_bulk_that_was_ready_first(pair: Pair) -> None:
    bulk, bulk_there = pair.stream()
    small, _ = pair.stream()
    for _ in range(20):
        flood([bulk])
        pair.reactor.turn(0)
        bulk_there.received()
    pair.settle()
    while bulk_there.received():
        pair.settle()
    flood([bulk])
    small.sock.send(b"small")
    sock = pair.client._sock = pair.client.out._sock = Counting(pair.client._sock)
    pair.reactor.turn(0)
    assert sock.sends[0] < 100
    assert sock.sends[1] > 100_000


def test_only_tunnels_are_flushed_once_a_turn(pair: Pair) -> None:
    streams = [pair.stream() for _ in range(20)]
    sock = pair.client._sock = pair.client.out._sock = Counting(pair.client._sock)
    for here, _ in streams:
        here.sock.send(b"x" * 100)
    pair.settle()
    assert [there.received() for _, there in streams] == [b"x" * 100] * 20
    record = 5 + 1 + 16  # what TLS 1.3 adds to one
    assert sock.sends[0] == 20 * 109 + record, "twenty streams, one record, one send"


def test_a_closed_tunnel_gives_its_key_back_at_once(authority: Authority) -> None:
    pair = Pair(authority)
    pair.settle()
    here, there = pair.stream()
    assert pump(pair, here, there, b"hello") == b"hello"
    keys = [weakref.ref(end._tls._connection.get_context()) for end in (pair.client, pair.server)]
    reactor = pair.reactor
    pair.client.close(TunnelEnd.DRAINED)
    pair.settle()
    assert all(key() is not None for key in keys)
    del here, there, pair
    assert all(key() is None for key in keys), "without the garbage collector"
    reactor.close()


@pytest.mark.skipif(not LIBRARY, reason="there is no libssl on this host")
def test_key_updates_have_a_pace(authority: Authority) -> None:
    """Each costs us new keys and an answer, and moves nothing."""
    for updates, burst in ((10, True), (2 * int(SILENT_BURST), True), (200, False)):
        pair = Pair(authority)
        pair.client.close(TunnelEnd.CUT)
        pair.settle()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        user = User()
        tls = TlsConnection(
            TlsContext(authority.issue(str(SERVER))), True, expect_trust_domain("cluster.local")
        )
        session = Session(Role.SERVER, SERVER_SETTINGS)
        tunnel = Tunnel(pair.reactor, pair.timers, ours, tls, session, user)
        tunnel.start()
        peer = OpensslClient(theirs.fileno(), authority.issue(str(CLIENT)))
        while not peer.shake_hands():
            pair.settle()
        peer.write(PREFACE + pack_frame(SETTINGS, 0, 0))
        pair.settle()
        pair.timers.ping.stop(tunnel)  # this peer answers none
        for _ in range(updates):
            assert peer.update_key() or tunnel.closed
            if not burst:
                pair.time.now_s += 1 / SILENT_PER_S
            pair.settle()
        assert tunnel.closed == (updates > SILENT_BURST and burst)
        if tunnel.closed:
            assert tunnel.refusal is Reason.SILENT_RECORDS
            assert user.closed is not None
            assert user.closed[0] is TunnelEnd.DISMISSED
        tunnel.close(TunnelEnd.CUT)
        pair.settle()
        peer.close()
        theirs.close()
        pair.close()
