"""Sockets without Python's own class around them, resets, early ACKs, and many pieces at once."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator

import pytest

from ztunnel.loop.reactor import Reactor
from ztunnel.transport.sockets import (
    GATHERED_BYTES_MAX,
    PIECES_MAX,
    Pieces,
    bare_socket,
    end_handshake,
    gather,
    reset,
    send_pieces,
)


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor(lambda item: pytest.fail(f"a bug in {item}"))
    yield made
    made.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_bare_socket_is_a_tcp_socket_that_does_not_block(family: int) -> None:
    sock = bare_socket(int(family))
    try:
        assert sock.family == family
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        assert not os.get_blocking(sock.fileno())
        assert not os.get_inheritable(sock.fileno())
    finally:
        sock.close()


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def test_a_bare_socket_takes_over_a_descriptor() -> None:
    client, server = connected()
    with server:
        taken = bare_socket(int(client.family), client.detach())
        try:
            taken.send(b"hello")
            assert server.recv(10) == b"hello"
        finally:
            taken.close()


def test_a_reset_reaches_the_other_end_at_the_end_of_the_turn(reactor: Reactor) -> None:
    client, server = connected()
    with server:
        reset(reactor, client)
        assert client.fileno() >= 0
        reactor.turn(0)
        assert client.fileno() < 0
        with pytest.raises(ConnectionResetError):
            server.recv(1)


def test_a_socket_that_is_gone_is_discarded_all_the_same(reactor: Reactor) -> None:
    client, server = connected()
    client.close()
    server.close()
    reset(reactor, client)
    end_handshake(client)
    reactor.turn(0)


def test_more_pieces_than_one_call_takes_are_all_sent_in_order() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        pieces: deque[bytes | memoryview] = deque(b"%d," % n for n in range(3 * PIECES_MAX))
        everything = b"".join(pieces)
        assert send_pieces(near, pieces) == len(everything)
        assert not pieces
        assert far.recv(len(everything) + 1) == everything


def test_the_pieces_that_the_kernel_does_not_take_stay() -> None:
    near, far = socket.socketpair()
    with near, far:
        for sock in (near, far):
            sock.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        pieces: deque[bytes | memoryview] = deque(bytes([n]) * 1_000 for n in range(100))
        everything, sent, got = b"".join(pieces), 0, b""
        while pieces:
            taken = send_pieces(near, pieces)
            assert taken > 0
            assert sum(map(len, pieces)) == len(everything) - sent - taken
            sent += taken
            got += far.recv(len(everything))
        assert got == everything


def test_a_connection_that_is_gone_is_an_error() -> None:
    near, far = socket.socketpair()
    far.close()
    with near, pytest.raises(BrokenPipeError):
        send_pieces(near, deque([b"words"]))


def test_small_pieces_gather_and_what_is_partly_sent_is_left_alone() -> None:
    pieces: Pieces = deque([b"first"])
    for number in range(3 * GATHERED_BYTES_MAX):
        gather(pieces, b"%d" % (number % 10))
    assert len(pieces) == 4
    last = pieces[-1]
    pieces[-1] = memoryview(last)[1:]  # as `send_pieces` leaves it
    gather(pieces, b"more")
    assert b"".join(pieces).endswith(b"9" + b"more") or len(pieces) == 5
    assert pieces[-1] == b"more"
