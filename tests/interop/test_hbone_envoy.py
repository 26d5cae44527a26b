"""Envoy as HBONE server for our client, and as HBONE client for our server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.model.workload import HBONE_PORT
from tests.support.engine.tunnel_bed import (
    CLIENT,
    SERVER,
    App,
    Bed,
    dial,
    eventually,
    is_reset,
    read_all,
    read_exactly,
    transfer,
)
from tests.support.peers import envoy


@pytest.fixture
def mesh() -> Iterator[Bed]:
    """Without an inbound side of ours: Envoy takes its place in some tests."""
    made = Bed()
    yield made
    made.close()


@pytest.fixture
def through_envoy_server(mesh: Bed, app: App, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Our outbound side → Envoy as the server."""
    at = (mesh.address, HBONE_PORT)
    resources = envoy.server(at, mesh.authority.issue(str(SERVER)), str(CLIENT))
    with envoy.running(resources, at, tmp_path):
        yield mesh.client.entry(mesh.endpoint(app.port))


@pytest.fixture
def envoy_client(mesh: Bed, app: App, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Envoy as the client → our inbound side. The second entry leads to a dead port."""
    mesh.serve_hbone()
    ports = [socket.create_server((mesh.address, 0)) for _ in range(2)]
    entries = [(mesh.address, sock.getsockname()[1]) for sock in ports]
    for sock in ports:
        sock.close()
    resources = envoy.client(
        {entries[0]: f"{mesh.address}:{app.port}", entries[1]: f"{mesh.address}:9"},
        (mesh.address, HBONE_PORT),
        mesh.authority.issue(str(CLIENT)),
        str(SERVER),
    )
    with envoy.running(resources, entries[1], tmp_path):
        yield entries[0]


def test_16_mib_both_ways_through_an_envoy_server(through_envoy_server: tuple[str, int]) -> None:
    assert transfer(through_envoy_server, 16)


def test_an_envoy_server_carries_many_streams_in_one_tunnel(
    mesh: Bed, through_envoy_server: tuple[str, int]
) -> None:
    sockets = [dial(through_envoy_server) for _ in range(60)]
    for sock in sockets:
        sock.sendall(b"hello")
    for sock in sockets:
        assert read_exactly(sock, 5) == b"hello"
        sock.close()
    assert mesh.client.call(lambda: mesh.client.engine.pool.tunnels) == 1


def test_503_of_an_envoy_server_resets_the_client(
    mesh: Bed, through_envoy_server: tuple[str, int]
) -> None:
    assert is_reset(mesh.client.entry(mesh.endpoint(9)))
    assert mesh.client.engine.counters.refusals == {"status_5xx": 1}


def test_an_envoy_server_that_wants_somebody_else_is_a_failure(
    mesh: Bed, app: App, tmp_path: Path
) -> None:
    at = (mesh.address, HBONE_PORT)
    resources = envoy.server(
        at, mesh.authority.issue(str(SERVER)), "spiffe://cluster.local/ns/demo/sa/bob"
    )
    with envoy.running(resources, at, tmp_path):
        assert is_reset(mesh.client.entry(mesh.endpoint(app.port)))
    assert mesh.client.engine.counters.refusals == {"tls_failed": 1}
    assert app.accepted == 0


def test_16_mib_both_ways_from_an_envoy_client(envoy_client: tuple[str, int]) -> None:
    assert transfer(envoy_client, 16)


def test_an_envoy_client_may_half_close_first(envoy_client: tuple[str, int]) -> None:
    with dial(envoy_client) as sock:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"hello"


def test_an_envoy_client_that_tries_to_resume_gets_a_full_handshake(
    mesh: Bed, envoy_client: tuple[str, int]
) -> None:
    """Envoy keeps session tickets; each new tunnel must be verified again, and work."""
    for round_number in range(3):
        with dial(envoy_client) as sock:
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
        engine = mesh.server.engine
        assert engine.counters.engine["inbound_tunnels_opened"] == round_number + 1
        mesh.server.call(lambda: [tunnel.drain() for tunnel in list(mesh.server.pod.tunnels)])
        eventually(lambda: not mesh.server.pod.tunnels, "the tunnel is gone")
    refusals = mesh.server.engine.counters.refusals
    assert not [each for each in refusals if each.startswith(("tls", "peer"))]


def test_a_dead_app_port_ends_an_envoy_clients_connection(
    mesh: Bed, app: App, envoy_client: tuple[str, int]
) -> None:
    refusals = mesh.server.engine.counters.refusals
    eventually(lambda: refusals.get("connect_failed") == 1, "the wait for Envoy left its trace")
    app.close()
    with dial(envoy_client) as sock:
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
    eventually(lambda: refusals["connect_failed"] == 2, "it is counted")
