"""An app's socket and its stream: order, ends, resets, shares of a turn, and who waits for whom."""

from __future__ import annotations

import socket
from itertools import pairwise
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.engine.tunnel_memory import App, Pair, Waiting, drain, flood, pump
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.settings import SessionSettings
from ztunnel.hbone.stream import Stream
from ztunnel.loop.reactor import READABLE, WATCH_READ
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.farewell import FAREWELL_S
from ztunnel.transport.scratch import (
    CHUNK_BYTES_FIRST,
    CHUNK_BYTES_MAX,
    CHUNK_GROWTH,
    FRAME_HEAD_BYTES,
    TURN_BYTES_MAX,
)


class Dialling:
    """Owns an answered stream whose app is not there yet, and keeps what comes for it."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.ended = False
        self.code: int | None = None  # the reset's

    def on_data(self, data: memoryview) -> None:
        self.held += data

    def on_data_run(self, pieces: list[memoryview]) -> None:
        self.held += b"".join(pieces)

    def on_end(self) -> None:
        self.ended = True

    def on_response(self, status: int, ended: bool) -> None:
        raise AssertionError

    def on_reset(self, code: int) -> None:
        self.code = code

    def on_window(self) -> None:
        raise AssertionError

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        pass

    def on_bug(self) -> None:
        raise AssertionError


def dialling(pair: Pair) -> tuple[App, Dialling, Stream]:
    """A client's app with a relay, and the server's stream with nobody behind it yet."""
    stream = pair.client.session.request("10.0.0.2:80", [])
    pair.client.touch()
    here = App(pair.reactor, pair.client, stream)
    pair.client.adopt(stream, Waiting(here))
    pair.settle()
    request = pair.server_user.requests.pop()
    owner = Dialling()
    pair.server.adopt(request.stream, owner)
    pair.server.session.respond(request.stream, 200, (), end_stream=False)
    pair.server.touch()
    pair.settle()
    return here, owner, request.stream


# -- the beginning -------------------------------------------------------------------------------


def test_payload_that_came_before_the_app_reaches_it_first(pair: Pair) -> None:
    here, owner, stream = dialling(pair)
    here.sock.send(b"early ")
    pair.settle()
    there = App(pair.reactor, pair.server, stream)
    there.relay.start(owner.held, ready=None, peer_ended=owner.ended)
    here.sock.send(b"late")
    pair.settle()
    assert there.received() == b"early late"
    assert not there.ended()


def test_an_end_that_came_before_the_app_follows_its_payload(pair: Pair) -> None:
    for words in (b"", b"all of it"):
        here, owner, stream = dialling(pair)
        here.sock.send(words)
        here.sock.shutdown(socket.SHUT_WR)
        pair.settle()
        there = App(pair.reactor, pair.server, stream)
        there.relay.start(owner.held, ready=None, peer_ended=owner.ended)
        pair.settle()
        assert there.received() == words
        assert there.ended()
        assert pump(pair, there, here, b"answer") == b"answer"


def test_an_app_that_spoke_while_somebody_else_watched_is_heard(pair: Pair) -> None:
    here, _, stream = dialling(pair)
    there = App(pair.reactor, pair.server, stream)
    ours = there.relay._sock
    pair.reactor.watch(ours.fileno(), there.relay, WATCH_READ)  # as the dial that made it does
    there.sock.send(b"banner")
    there.relay.start(None, ready=READABLE, peer_ended=False)
    pair.settle()
    assert here.received() == b"banner"


def test_the_relay_knows_which_app_spoke_first(pair: Pair) -> None:
    here, there = pair.stream()
    pump(pair, here, there, b"question")
    pump(pair, there, here, b"the answer")
    assert (here.relay.app_first, there.relay.app_first) == (True, False)
    assert here.relay.moved_from_here() == there.relay.moved_to_here() == (8, 10)


# -- from the app --------------------------------------------------------------------------------


class Sizes(socket.socket):
    """Notes the size of each read that is asked for."""

    def __init__(self, taken_over: socket.socket) -> None:
        super().__init__(fileno=taken_over.detach())
        self.asked: list[int] = []

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        self.asked.append(nbytes)
        return super().recv_into(buffer, nbytes, flags)


def test_reads_grow_only_for_an_app_that_fills_them(pair: Pair) -> None:
    here, there = pair.stream()
    sock = here.relay._sock = Sizes(here.relay._sock)
    for _ in range(5):
        pump(pair, here, there, b"small")
    assert set(sock.asked) == {CHUNK_BYTES_FIRST}
    pump(pair, here, there, bytes(4_000_000))
    assert max(sock.asked) > 4 * CHUNK_BYTES_FIRST
    whole = sorted({size + FRAME_HEAD_BYTES for size in sock.asked if size >= CHUNK_BYTES_FIRST})
    assert all(larger <= CHUNK_GROWTH * smaller for smaller, larger in pairwise(whole))
    assert all(size % 16_384 == 0 for size in whole), "whole TLS records"


def test_a_connection_takes_no_more_than_its_share_of_a_turn(pair: Pair) -> None:
    here, there = pair.stream()
    here.relay._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
    here.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
    before = 0
    for _ in range(20):
        flood([here])
        pair.reactor.turn(0)
        moved = here.relay.from_app_bytes - before
        assert moved <= TURN_BYTES_MAX + CHUNK_BYTES_MAX
        before += moved
        there.received()
    assert before > TURN_BYTES_MAX


def test_an_app_waits_for_the_streams_window(authority: Authority) -> None:
    window = SessionSettings(initial_window_bytes=1_000)
    pair = Pair(authority, server_settings=window)
    pair.settle()
    here, owner, stream = dialling(pair)
    here.sock.send(bytes(5_000))
    pair.settle()
    assert here.relay.from_app_bytes == len(owner.held) == 1_000
    assert pair.settle() == 0, "a closed window costs no turns"
    pair.server.session.consumed(stream, 1_000)
    pair.server.touch()
    pair.settle()
    assert here.relay.from_app_bytes == 2_000
    pair.close()


def test_an_app_that_was_reset_keeps_no_stream_whose_peer_gives_no_window(
    authority: Authority,
) -> None:
    pair = Pair(authority, server_settings=SessionSettings(initial_window_bytes=1_000))
    pair.settle()
    here, owner, _ = dialling(pair)
    here.relay._sock.send(b"never read, so that closing is a reset")
    here.sock.send(bytes(5_000))
    here.sock.close()
    pair.settle()
    assert here.ends == [], "its last bytes may still go on"
    pair.pass_s(FAREWELL_S)
    assert here.ends == [RelayEnd.APP_RESET]
    assert (len(owner.held), owner.code) == (1_000, ErrorCode.CONNECT_ERROR)
    assert pair.client.streams == 0
    pair.close()


def test_last_words_and_the_end_go_together(pair: Pair) -> None:
    """One frame, and whole also when the app at the other end takes it in pieces."""
    for size in (1, 1000, 300_000):
        near, far = pair.stream()
        sent = near.sock.send(b"x" * size)
        near.sock.shutdown(socket.SHUT_WR)
        pair.settle()
        found = far.received()
        pair.settle()
        found += far.received()
        assert len(found) == sent
        assert far.ended()


# -- the ends ------------------------------------------------------------------------------------


def test_each_half_ends_by_itself(pair: Pair) -> None:
    here, there = pair.stream()
    here.sock.shutdown(socket.SHUT_WR)
    pair.settle()
    assert there.ended()
    assert here.ends == []
    assert pump(pair, there, here, b"still") == b"still"
    there.sock.shutdown(socket.SHUT_WR)
    pair.settle()
    assert here.ended()
    assert here.ends == there.ends == [RelayEnd.FINISHED]
    assert pair.client.streams == pair.server.streams == 0


def test_an_app_that_leaves_resets_the_other_end(pair: Pair) -> None:
    here, there = pair.stream()
    there.sock.send(b"unread")
    pair.settle()
    here.sock.close()  # with unread bytes: the kernel says reset
    there.sock.send(b"more")
    pair.settle()
    assert here.ends == [RelayEnd.APP_RESET]
    assert there.ends == [RelayEnd.PEER_RESET]


def test_abort_tells_both_apps(pair: Pair) -> None:
    here, there = pair.stream()
    there.relay.abort(RelayEnd.POLICY)
    pair.settle()
    assert there.ends == [RelayEnd.POLICY]
    assert here.ends == [RelayEnd.PEER_RESET]


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (ErrorCode.REFUSED_STREAM, RelayEnd.PEER_REFUSED),
        (ErrorCode.NO_ERROR, RelayEnd.PEER_RESET),
        (ErrorCode.CONNECT_ERROR, RelayEnd.PEER_RESET),
    ],
)
def test_a_reset_by_the_peer_resets_the_app(pair: Pair, code: ErrorCode, end: RelayEnd) -> None:
    here, there = pair.stream()
    pair.server.session.reset(there.relay.stream, code)
    pair.server.touch()
    pair.settle()
    assert here.ends == [end]
    assert here.ended(), "a socket of this family shows a reset as an end"
    assert pair.client.streams == 0


def test_the_peer_is_told_why_a_stream_was_reset(pair: Pair) -> None:
    """A TCP connection that was reset has a code of its own (RFC 9113 section 8.5)."""
    here, owner, _ = dialling(pair)
    here.relay._sock.send(b"never read, so that closing is a reset")
    here.sock.send(b"last words")
    here.sock.close()
    pair.settle()
    assert here.ends == [RelayEnd.APP_RESET]
    assert (owner.held, owner.code) == (b"last words", ErrorCode.CONNECT_ERROR)
    here, owner, _ = dialling(pair)
    here.relay.abort(RelayEnd.POLICY)
    pair.settle()
    assert owner.code == ErrorCode.CANCEL


def test_a_lost_tunnel_takes_nothing_from_an_app_once_all_is_said(pair: Pair) -> None:
    here, there = pair.stream()
    there.relay._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    here.sock.send(bytes(100_000))
    here.sock.shutdown(socket.SHUT_WR)
    there.sock.shutdown(socket.SHUT_WR)
    pair.settle()
    pair.server.close(TunnelEnd.CUT)
    pair.settle()
    assert there.ends == []
    assert len(drain(pair, there)) == 100_000
    assert there.ended()
    assert there.ends == [RelayEnd.FINISHED]


def test_a_lost_tunnel_cuts_an_app_that_would_have_heard_more(pair: Pair) -> None:
    here, there = pair.stream()
    there.sock.shutdown(socket.SHUT_WR)
    pair.settle()
    pair.server.close(TunnelEnd.POD_DELETED)
    pair.settle()
    assert (here.ends, there.ends) == ([RelayEnd.TUNNEL_LOST], [RelayEnd.POD_DELETED])


def test_a_bug_ends_the_connection_at_both_ends(pair: Pair) -> None:
    here, there = pair.stream()
    here.relay.on_bug()
    pair.settle()
    assert (here.ends, there.ends) == ([RelayEnd.INTERNAL_ERROR], [RelayEnd.PEER_RESET])
    assert pair.client.streams == pair.server.streams == 0


def test_a_second_answer_never_passes_the_session(pair: Pair) -> None:
    here, _ = pair.stream()
    with pytest.raises(AssertionError):
        here.relay.on_response(200, False)
