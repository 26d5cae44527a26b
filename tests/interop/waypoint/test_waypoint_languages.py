"""HTTP/1.1, HTTP/2 and upgrades, as clients and servers speak them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from control.model.address import parse_address
from control.model.route import BackendEndpoint, Spoken
from tests.interop.waypoint.conftest import Shop
from tests.support.engine.tunnel_bed import App, eventually
from tests.support.peers.h2_lines import answer_h2, ask_h2
from tests.support.peers.tunnel_client import TunnelClient, ask
from tests.support.waypoint.bed import account, backend, by_name, front

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


@pytest.fixture(scope="module")
def h2_server(shop: Shop) -> Iterator[BackendEndpoint]:
    address = shop.bed.pods.add("h2", account("h2"))
    app = App(address, answer_h2)
    yield BackendEndpoint(parse_address(address), app.port, account("h2"))
    app.close()


def serve(shop: Shop, name: str, vip: str, spoken: Spoken, endpoint: BackendEndpoint) -> None:
    shop.bed.apply(by_name(front(name, vip)), by_name(backend(name, endpoint, spoken=spoken)))
    authority = f"{vip}:80"

    def status() -> int:
        with shop.bed.tunnel("shopper", authority) as tunnel:
            return tunnel.status

    eventually(lambda: status() == 200, "the front is there")


def over_h2(tunnel: TunnelClient, path: str) -> tuple[dict[str, str], bytes]:
    return ask_h2(tunnel.send, tunnel.receive, path)


def test_http2_to_a_server_that_has_it_alone(shop: Shop, h2_server: BackendEndpoint) -> None:
    serve(shop, "shop/two:80", "10.96.20.1", Spoken.HTTP2, h2_server)
    with shop.bed.tunnel("shopper", "10.96.20.1:80") as tunnel:
        headers, body = over_h2(tunnel, "/two")
    assert (headers[":status"], headers["grpc-status"], body) == ("200", "0", b"/two")


def test_http1_to_a_server_of_http2(shop: Shop, h2_server: BackendEndpoint) -> None:
    serve(shop, "shop/two:80", "10.96.20.1", Spoken.HTTP2, h2_server)
    with shop.bed.tunnel("shopper", "10.96.20.1:80") as tunnel:
        assert ask(tunnel, "/one").body == b"/one"


def test_http2_to_a_server_of_http1(shop: Shop) -> None:
    serve(shop, "shop/v1:80", "10.96.20.2", Spoken.HTTP1, shop.pods["v1"])
    with shop.bed.tunnel("shopper", "10.96.20.2:80") as tunnel:
        headers, body = over_h2(tunnel, "/down")
    assert headers[":status"] == "200"
    assert b'"path": "/down"' in body


def test_where_nothing_is_said_the_clients_version_is_kept(
    shop: Shop, h2_server: BackendEndpoint
) -> None:
    serve(shop, "shop/any1:80", "10.96.20.3", Spoken.ANY, shop.pods["v1"])
    serve(shop, "shop/any2:80", "10.96.20.4", Spoken.ANY, h2_server)
    with shop.bed.tunnel("shopper", "10.96.20.3:80") as tunnel:
        assert ask(tunnel, "/x").who == "v1"
    with shop.bed.tunnel("shopper", "10.96.20.4:80") as tunnel:
        assert over_h2(tunnel, "/x")[1] == b"/x"


def test_a_websocket_is_bytes_both_ways(shop: Shop) -> None:
    def upgrade(connection: socket.socket) -> None:
        head = b""  # it may come in two pieces
        while not head.endswith(b"\r\n\r\n") and (piece := connection.recv(65_536)):
            head += piece
        connection.sendall(ACCEPTED)
        while data := connection.recv(65_536):
            connection.sendall(data)

    address = shop.bed.pods.add("ws", account("ws"))
    app = App(address, upgrade)
    endpoint = BackendEndpoint(parse_address(address), app.port, account("ws"))
    serve(shop, "shop/ws:80", "10.96.20.5", Spoken.ANY, endpoint)
    with shop.bed.tunnel("shopper", "10.96.20.5:80") as tunnel:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        assert ask(tunnel, headers=headers).status == 101
        tunnel.send(b"frame")
        assert tunnel.read(5) == b"frame"
    app.close()


def test_connect_inside_a_tunnel_goes_nowhere(shop: Shop) -> None:
    serve(shop, "shop/v1:80", "10.96.20.2", Spoken.HTTP1, shop.pods["v1"])
    with shop.bed.tunnel("shopper", "10.96.20.2:80") as tunnel:
        assert ask(tunnel, "10.96.20.2:80", method="CONNECT").status in (400, 403, 404)
