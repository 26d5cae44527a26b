"""Sockets without Python's own class around them, resets, and ACKs that go by themselves."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from ztunnel.loop.reactor import Reactor
from ztunnel.transport.sockets import bare_socket, end_handshake, reset


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
