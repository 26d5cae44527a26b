"""Our client ↔ our server over real sockets: bytes, half-closes, resets, limits, back-pressure."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from control.model.address import Endpoint, parse_address
from tests.support.engine.tunnel_bed import (
    CLIENT,
    SERVER,
    App,
    Bed,
    bed,
    dial,
    echo,
    eventually,
    is_reset,
    read_all,
    read_exactly,
    refused,
    transfer,
)
from tests.support.engine.tunnel_memory import held_bytes
from ztunnel.hbone.settings import SERVER_SETTINGS

MIB = 1 << 20


@pytest.fixture
def echoed(mesh: Bed, app: App) -> tuple[str, int]:
    """Address of an echo server behind the tunnel."""
    return mesh.client.entry(mesh.endpoint(app.port))


def test_bytes_are_equal_both_ways_when_the_client_half_closes_first(
    echoed: tuple[str, int],
) -> None:
    assert transfer(echoed, 16)


def test_the_server_may_half_close_first(mesh: Bed) -> None:
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        got.append(read_all(connection))

    app = App(mesh.address, serve)
    with dial(mesh.client.entry(mesh.endpoint(app.port))) as sock:
        assert read_all(sock) == b"greeting"
        sock.sendall(b"late")
        sock.shutdown(socket.SHUT_WR)
        eventually(lambda: got == [b"late"], "the other half still carries bytes")
    app.close()


def test_an_app_that_greets_is_heard_also_after_clients_that_spoke_first(mesh: Bed) -> None:
    greets = threading.Event()

    def serve(connection: socket.socket) -> None:
        if greets.is_set():
            connection.sendall(b"welcome")
        echo(connection)

    app = App(mesh.address, serve)
    where = mesh.client.entry(mesh.endpoint(app.port))
    for number in range(3):
        with dial(where) as sock:
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"hello", number
    greets.set()
    for _ in range(3):
        with dial(where) as sock:
            assert read_exactly(sock, 7) == b"welcome"
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
    app.close()


def test_many_connections_at_once_stay_apart(echoed: tuple[str, int]) -> None:
    sockets = [dial(echoed) for _ in range(50)]
    for number, sock in enumerate(sockets):
        sock.sendall(b"%04d" % number * 500)
    for number, sock in enumerate(sockets):
        assert read_exactly(sock, 2000) == b"%04d" % number * 500
        sock.close()


def test_the_101st_stream_opens_a_second_connection(mesh: Bed, echoed: tuple[str, int]) -> None:
    sockets = [dial(echoed) for _ in range(101)]
    for sock in sockets:
        sock.sendall(b"x")
    for sock in sockets:
        assert sock.recv(1) == b"x"
    assert mesh.client.call(lambda: mesh.client.engine.pool.tunnels) == 2
    streams = mesh.client.call(lambda: mesh.client.engine.pool.view()[0]["streams"])
    assert streams == [100, 1]
    for sock in sockets:
        sock.close()


def test_a_refused_app_port_resets_the_client(mesh: Bed) -> None:
    assert is_reset(mesh.client.entry(mesh.endpoint(9)))


def test_a_reset_by_the_client_reaches_the_app(mesh: Bed) -> None:
    seen: list[str] = []

    def serve(connection: socket.socket) -> None:
        try:
            while connection.recv(100):
                pass
            seen.append("fin")
        except ConnectionResetError:
            seen.append("reset")

    app = App(mesh.address, serve)
    sock = dial(mesh.client.entry(mesh.endpoint(app.port)))
    sock.sendall(b"x")
    eventually(lambda: app.accepted == 1, "the app is connected")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    eventually(lambda: seen == ["reset"], "the app sees a reset, not an end")
    app.close()


def test_a_reset_by_the_app_reaches_the_client(mesh: Bed) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    app = App(mesh.address, serve)
    with dial(mesh.client.entry(mesh.endpoint(app.port))) as sock:
        sock.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    app.close()


def test_a_client_that_never_reads_fills_a_bounded_memory_and_delays_nobody(
    mesh: Bed, echoed: tuple[str, int]
) -> None:
    pushed = threading.Event()

    def flood(connection: socket.socket) -> None:
        connection.settimeout(2)
        block = bytes(MIB)
        try:
            for _ in range(256):
                connection.sendall(block)
        except TimeoutError:
            pushed.set()

    app = App(mesh.address, flood)
    with dial(mesh.client.entry(mesh.endpoint(app.port))) as slow:
        assert pushed.wait(15), "the app is stopped by back-pressure"
        relays = mesh.client.call(lambda: list(mesh.client.pod.outbound))
        held = mesh.client.call(lambda: held_bytes(relays[0]._relay))
        assert 0 < held <= SERVER_SETTINGS.initial_window_bytes
        turns = mesh.client.reactor.turns
        assert transfer(echoed, 4), "another stream of the same tunnel moves"
        idle = mesh.client.reactor.turns
        time.sleep(0.3)
        assert mesh.client.reactor.turns - idle < 5, "a blocked peer costs no turns"
        assert idle > turns
        slow.close()
    app.close()


def test_an_idle_tunnel_costs_no_turns(mesh: Bed, echoed: tuple[str, int]) -> None:
    with dial(echoed) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        before = mesh.client.reactor.turns, mesh.server.reactor.turns
        time.sleep(0.3)
        after = mesh.client.reactor.turns, mesh.server.reactor.turns
        assert [b - a for a, b in zip(before, after, strict=True)] <= [3, 3]


def test_goaway_lets_a_transfer_finish_and_new_streams_take_another_tunnel(
    mesh: Bed, echoed: tuple[str, int]
) -> None:
    with dial(echoed) as sock:
        sock.sendall(b"before")
        assert read_exactly(sock, 6) == b"before"
        mesh.server.call(lambda: [tunnel.drain() for tunnel in list(mesh.server.pod.tunnels)])
        sock.sendall(b"after!")
        assert read_exactly(sock, 6) == b"after!"
        assert transfer(echoed, 1)
        assert mesh.client.call(lambda: mesh.client.engine.pool.tunnels) == 2
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    eventually(lambda: mesh.client.engine.pool.tunnels == 1, "the drained tunnel goes")


def test_a_renewed_certificate_does_not_touch_a_running_transfer(
    mesh: Bed, echoed: tuple[str, int]
) -> None:
    with dial(echoed) as sock:
        sock.sendall(b"a")
        assert sock.recv(1) == b"a"
        mesh.client.certify(CLIENT, mesh.authority.issue(str(CLIENT)))
        mesh.server.certify(SERVER, mesh.authority.issue(str(SERVER)))
        sock.sendall(b"b")
        assert sock.recv(1) == b"b"
    assert transfer(echoed, 1)


def test_ipv6_authority_and_address() -> None:
    with bed("::1") as mesh:
        app = App("::1", echo)
        assert transfer(mesh.client.entry(mesh.endpoint(app.port)), 2)
        app.close()


def test_a_destination_outside_the_mesh_is_passed_through(mesh: Bed) -> None:
    app = App("127.0.0.1", echo)
    where = mesh.client.entry(Endpoint(parse_address("127.0.0.1"), app.port))
    assert transfer(where, 16)
    assert mesh.client.call(lambda: mesh.client.engine.pool.tunnels) == 0
    app.close()


def test_deleting_the_pod_ends_everything_at_once(mesh: Bed, echoed: tuple[str, int]) -> None:
    sock = dial(echoed)
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    mesh.client.call(lambda: mesh.client.engine.remove_pod("client"))
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    eventually(lambda: refused(echoed), "the listener is gone")
    assert mesh.client.call(lambda: mesh.client.engine.connections) == 0
    eventually(lambda: mesh.server.engine.connections == 0, "the other side notices")


def test_an_unknown_original_destination_is_closed_and_counted(mesh: Bed) -> None:
    where = mesh.client.entry(mesh.endpoint(1))
    mesh.client.destinations.clear()
    assert is_reset(where)
    assert mesh.client.engine.counters.refusals["no_original_destination"] == 1
