"""Bytes that came before a reset are delivered before it, as without a proxy, on every way."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from control.model.address import Endpoint, parse_address
from tests.support.engine.tunnel_bed import (
    DEADLINE_S,
    App,
    Bed,
    bed,
    dial,
    endpoint_of,
    eventually,
)
from ztunnel.connections.inbound import accept_plaintext
from ztunnel.transport.farewell import unacknowledged_bytes

QUESTION = b"q" * 3000
# Below and above one read, one window of the socket, one window of a stream.
SIZES = (1, 20_000, 300_000, 3_000_000)
TRIES = 5
Serve = Callable[[socket.socket], None]
Way = tuple[str, int]


@contextmanager
def unmeshed(serve: Serve) -> Iterator[Way]:
    app = App("127.0.0.1", serve)
    yield ("127.0.0.1", app.port)
    app.close()


@contextmanager
def tunnel(serve: Serve, address: str = "") -> Iterator[Way]:
    with bed(address) as mesh:
        app = App(mesh.address, serve)
        yield mesh.client.entry(mesh.endpoint(app.port))
        app.close()


@contextmanager
def tunnel_ipv6(serve: Serve) -> Iterator[Way]:
    with tunnel(serve, "::1") as way:
        yield way


@contextmanager
def passthrough(serve: Serve) -> Iterator[Way]:
    with bed() as mesh:
        app = App("127.0.0.1", serve)
        yield mesh.client.entry(Endpoint(parse_address("127.0.0.1"), app.port))
        app.close()


@contextmanager
def plaintext_in(serve: Serve) -> Iterator[Way]:
    """A listener that hands each connection over as plaintext for the app's port."""
    with bed() as mesh:
        app = App(mesh.address, serve)

        def hand_over(theirs: socket.socket) -> None:
            ours = theirs.dup()
            ours.setblocking(False)
            peer = endpoint_of(theirs.getpeername())
            node, target = mesh.server, mesh.endpoint(app.port)
            node.call(lambda: accept_plaintext(node.engine, node.pod, ours, peer, target))

        door = App("127.0.0.1", hand_over)
        yield ("127.0.0.1", door.port)
        door.close()
        app.close()


WAYS = {each.__name__: each for each in (unmeshed, tunnel, tunnel_ipv6, passthrough, plaintext_in)}


def says_and_resets(size: int) -> Serve:
    """An app that answers, and resets when the other kernel has all of it."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"x" * size)
        eventually(lambda: not unacknowledged_bytes(connection), "the answer has arrived")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return serve


def heard(where: Way) -> tuple[int, str]:
    """Bytes of the answer, and how it ended."""
    with dial(where) as sock:
        sock.sendall(QUESTION)
        got = 0
        try:
            while piece := sock.recv(1 << 16):
                got += len(piece)
        except ConnectionResetError:
            return got, "reset"
        return got, "end"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_before_a_reset_arrives_whole(way: str, size: int) -> None:
    with WAYS[way](says_and_resets(size)) as where:
        assert [heard(where) for _ in range(TRIES)] == [(size, "reset")] * TRIES


@pytest.mark.parametrize("way", WAYS)
def test_a_question_before_a_reset_arrives_whole(way: str) -> None:
    ends: list[tuple[int, str]] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"!")  # never read: the client's close becomes a reset
        got = 0
        try:
            while piece := connection.recv(1 << 16):
                got += len(piece)
            ends.append((got, "end"))
        except ConnectionResetError:
            ends.append((got, "reset"))

    with WAYS[way](serve) as where:
        for count in range(1, TRIES + 1):
            sock = dial(where)
            sock.sendall(QUESTION)
            assert sock.recv(1, socket.MSG_PEEK) == b"!"
            sock.close()
            eventually(lambda count=count: len(ends) == count, "the app has heard the end")
    assert ends == [(len(QUESTION), "reset")] * TRIES


def test_a_reader_that_stops_holds_its_socket_for_a_bounded_time(mesh_slow: Bed) -> None:
    """The rest waits for a slow reader, and a reader that goes away takes it along."""
    said = threading.Event()
    serve = says_and_resets(3_000_000)

    def serve_once(connection: socket.socket) -> None:
        serve(connection)
        said.set()

    app = App(mesh_slow.address, serve_once)
    sock = dial(mesh_slow.client.entry(mesh_slow.endpoint(app.port)))
    sock.sendall(QUESTION)
    assert sock.recv(1000) == b"x" * 1000
    assert said.wait(DEADLINE_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    handlers = mesh_slow.client.reactor._handlers
    eventually(
        lambda: not any(type(each).__name__ == "Farewell" for each in handlers.values()),
        "the farewell is over",
    )
    app.close()


@pytest.fixture
def mesh_slow() -> Iterator[Bed]:
    with bed() as made:
        yield made
