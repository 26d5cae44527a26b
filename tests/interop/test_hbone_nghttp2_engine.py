"""The engine's inbound side over real TLS, with libnghttp2 and OpenSSL as the foreign client."""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.model.workload import HBONE_PORT
from tests.support.engine.tunnel_bed import (
    CLIENT,
    DEADLINE_S,
    App,
    Bed,
    dial,
    eventually,
    read_exactly,
)
from tests.support.peers.nghttp2 import Peer
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.limits import ALLOWANCE_START, RESET_COST

BODY = bytes(range(251)) * 8_000  # two megabytes: many of the library's windows of 64 KiB


class Client:
    """The library's session and a TLS socket."""

    def __init__(self, mesh: Bed) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # a SPIFFE certificate has none
        context.load_verify_locations(cadata=mesh.authority.pem.decode())
        context.set_alpn_protocols(["h2"])
        material = mesh.authority.issue(str(CLIENT))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "both.pem"
            path.write_bytes(material.chain_pem[0] + material.key_pem)
            context.load_cert_chain(path)
        plain = dial((mesh.address, HBONE_PORT))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = context.wrap_socket(plain)
        self.peer = Peer(client=True)

    def until(self, holds: Callable[[], bool]) -> None:
        """Write what there is and read, until it holds."""
        end = time.monotonic() + DEADLINE_S
        while True:
            self.sock.sendall(self.peer.take())
            if holds():
                return
            assert time.monotonic() < end, "never happened"
            data = self.sock.recv(1 << 18)
            assert data, "cut off"
            self.peer.receive(data)

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


@pytest.fixture
def client(mesh: Bed) -> Iterator[Client]:
    made = Client(mesh)
    yield made
    made.close()


def test_tunnels_echo_at_once_and_end_one_half_at_a_time(
    mesh: Bed, app: App, client: Client
) -> None:
    peer = client.peer
    ids = [peer.connect(f"{mesh.address}:{app.port}") for _ in range(4)]
    bodies = {each: BODY[each:] for each in ids}
    for each, body in bodies.items():
        peer.say(each, body, end=True)
    client.until(lambda: all(each in peer.tunnels for each in ids))
    client.until(lambda: all(peer.tunnels[each].closed_with is not None for each in ids))
    for each, body in bodies.items():
        assert peer.tunnels[each].headers[":status"] == "200"
        assert peer.tunnels[each].got == body
        assert peer.tunnels[each].closed_with == ErrorCode.NO_ERROR
    assert not peer.complaints


def test_refusals_leave_the_connection_for_others(mesh: Bed, app: App, client: Client) -> None:
    peer = client.peer
    nobody = peer.connect("192.0.2.1:80")
    peer.say(nobody, bytes(30_000))
    good = peer.connect(f"{mesh.address}:{app.port}")
    peer.say(good, b"still here")
    client.until(lambda: peer.tunnels[nobody].closed_with is not None)
    assert peer.tunnels[nobody].headers[":status"] != "200"
    client.until(lambda: peer.tunnels[good].got == b"still here")
    peer.reset(good, ErrorCode.CANCEL)
    client.sock.sendall(peer.take())
    eventually(lambda: not mesh.server.pod.inbound, "the app's connection is dropped")
    assert not peer.complaints


def test_rapid_resets_cost_the_attacker_his_connection_and_nobody_else(
    mesh: Bed, app: App, client: Client
) -> None:
    peer = client.peer
    other = Client(mesh)
    theirs = other.peer.connect(f"{mesh.address}:{app.port}")
    client.until(lambda: not client.peer.take())
    allowed = ALLOWANCE_START // RESET_COST
    attack = bytearray(peer.take())
    for _ in range(2 * allowed):
        stream_id = peer.connect(f"{mesh.address}:{app.port}")
        attack += peer.take()
        peer.reset(stream_id, ErrorCode.CANCEL)
        attack += peer.take()
    client.sock.sendall(attack)
    client.until(lambda: bool(peer.goaways))
    assert peer.goaways[0][1] == ErrorCode.ENHANCE_YOUR_CALM
    other.peer.say(theirs, b"unharmed")
    other.until(lambda: other.peer.tunnels[theirs].got == b"unharmed")
    assert app.accepted <= allowed + 50
    other.close()
    where = mesh.client.entry(mesh.endpoint(app.port))
    with dial(where) as sock:
        sock.sendall(b"hello")
        assert read_exactly(sock, 5) == b"hello"
