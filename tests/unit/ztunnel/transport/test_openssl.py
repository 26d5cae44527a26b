"""Both ways into OpenSSL give the same bytes and the same errors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.support.certificates import make_authority
from ztunnel.transport.openssl import (
    OUT_BYTES,
    RECORD_PLAIN_BYTES_MAX,
    DirectWire,
    Wire,
    wire_of,
)
from ztunnel.transport.tls import TlsContext

CONTEXT = TlsContext(make_authority().issue("spiffe://cluster.local/ns/demo/sa/client"))
KINDS = (Wire, DirectWire)


def accept(_connection: SSL.Connection, *_rest: object) -> bool:
    return True


def ends(kind: type[Wire]) -> tuple[Wire, Wire]:
    """(client, server) after the handshake, which has left nothing behind."""
    wires = []
    for begin in (SSL.Connection.set_connect_state, SSL.Connection.set_accept_state):
        made = SSL.Connection(CONTEXT.ssl, None)
        begin(made)
        made.set_verify(SSL.VERIFY_NONE, accept)
        wires.append((made, kind(made)))
    (client, to_client), (server, to_server) = wires
    for _ in range(3):
        for each, wire, other in ((client, to_client, to_server), (server, to_server, to_client)):
            try:
                each.do_handshake()
            except SSL.WantReadError:
                pass
            data = wire.take()
            if data:
                other.feed(memoryview(data))
    return to_client, to_server


def read_all(wire: Wire, room: int = RECORD_PLAIN_BYTES_MAX) -> bytes:
    out = b""
    into = bytearray(room)
    try:
        while True:
            out += into[: wire.read(memoryview(into))]
    except SSL.WantReadError:
        return out


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=4), st.integers(1, 70_000))
def test_what_is_written_is_read(kind: type[Wire], sizes: list[int], cut: int) -> None:
    client, server = ends(kind)
    sent, said = b"", b""
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        client.write(memoryview(data))
        sent += client.take()
        said += data
    for start in range(0, len(sent), cut):
        server.feed(memoryview(sent)[start : start + cut])
    assert read_all(server) == said
    assert client.take() == b""


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_is_drained_at_once_comes_whole(kind: type[Wire]) -> None:
    client, server = ends(kind)
    said = bytes(range(256)) * (2 * OUT_BYTES // 256)
    client.write(said)
    sent = client.take()
    assert len(sent) > 2 * OUT_BYTES
    server.feed(memoryview(sent))
    assert read_all(server) == said


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_stays_in_its_room(kind: type[Wire]) -> None:
    client, server = ends(kind)
    client.write(b"x" * 1000)
    server.feed(memoryview(client.take()))
    behind = bytearray(b"-" * 300)
    assert server.read(memoryview(behind)[:100]) == 100
    assert behind == b"x" * 100 + b"-" * 200
    assert read_all(server, 7) == b"x" * 900


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_decrypted_into_bytes(kind: type[Wire]) -> None:
    client, server = ends(kind)
    client.write(b"x")
    server.feed(memoryview(client.take()))
    with pytest.raises((BufferError, TypeError)):
        server.read(memoryview(bytes(10)))


def broken(wire: Wire, other: Wire, data: bytes) -> str:
    wire.write(b"hello")
    sent = bytearray(wire.take())
    sent[-1] ^= 1
    other.feed(memoryview(data or sent))
    with pytest.raises(SSL.Error) as caught:
        other.read(memoryview(bytearray(100)))
    first = repr(caught.value)
    with pytest.raises(SSL.Error) as again:
        other.read(memoryview(bytearray(100)))
    with pytest.raises(SSL.Error) as wrote:
        other.write(b"x")
    return f"{first} {again.value!r} {wrote.value!r} {len(other.take())}"


@pytest.mark.parametrize(
    "data", [b"", b"\x17\x03\x03\xff\xff" + b"z" * 70_000, b"GET / HTTP/1.1\r\n"]
)
def test_what_breaks_tls_is_the_same_error(data: bytes) -> None:
    told = [broken(*ends(kind), data) for kind in KINDS]
    assert told[0] == told[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_goodbye_is_heard_each_time(kind: type[Wire]) -> None:
    client, server = ends(kind)
    client.write(b"last")
    client._connection.shutdown()
    server.feed(memoryview(client.take()))
    into = memoryview(bytearray(100))
    assert server.read(into) == 4
    for _ in range(2):
        with pytest.raises(SSL.ZeroReturnError):
            server.read(into)


def test_this_pyopenssl_is_called_past_its_wrappers() -> None:
    assert type(wire_of(SSL.Connection(CONTEXT.ssl, None))) is DirectWire


def test_one_without_these_handles_is_called_by_its_methods() -> None:
    other: Any = SimpleNamespace(bio_write=lambda data: len(data))
    assert type(wire_of(other)) is Wire
