"""A handshake's bytes have a bound, whoever sends them, and what is refused takes no memory."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from control.model.identity import SpiffeId
from tests.support.certificates import make_authority
from ztunnel.refusals import Reason
from ztunnel.transport.opening import HANDSHAKE_BYTES_MAX
from ztunnel.transport.scratch import FLIGHT_BYTES
from ztunnel.transport.tls import (
    Material,
    TlsConnection,
    TlsContext,
    TlsError,
    expect_trust_domain,
)

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")
AUTHORITY = make_authority()


def end(material: Material, server: bool) -> TlsConnection:
    return TlsConnection(TlsContext(material), server, expect_trust_domain("cluster.local"))


def long_chain(of: SpiffeId, certificates: int) -> Material:
    """A leaf that somebody has put others behind."""
    material = AUTHORITY.issue(str(of))
    return replace(material, chain_pem=(*material.chain_pem, *([AUTHORITY.pem] * certificates)))


def announced(length: int) -> bytes:
    hello = bytes([1]) + length.to_bytes(3, "big") + bytes(100)
    return struct.pack(">BHH", 22, 0x301, len(hello)) + hello


def shake(client: TlsConnection, server: TlsConnection, piece: int = FLIGHT_BYTES) -> None:
    """Pass flights in pieces; raises the TlsError of the end that refuses."""
    for _ in range(3):
        for one, other in ((client, server), (server, client)):
            if one.handshake() is not None and other.peer is not None:
                return
            flight = one.take()
            for at in range(0, len(flight), piece):
                other.feed(memoryview(flight)[at : at + piece])
                if at + piece < len(flight):
                    other.handshake()


def test_a_long_hello_is_refused_before_tls_makes_room_for_it() -> None:
    server = end(AUTHORITY.issue(str(SERVER)), True)
    with pytest.raises(TlsError, match="the hello has 131000 bytes") as caught:
        server.feed(memoryview(announced(131_000)))
    assert caught.value.refusal is Reason.HELLO_TOO_LARGE


def test_so_is_a_second_one() -> None:
    client = end(AUTHORITY.issue(str(CLIENT)), False)
    server = end(AUTHORITY.issue(str(SERVER)), True)
    client.handshake()
    server.feed(memoryview(client.take()))
    assert server.handshake() is None
    with pytest.raises(TlsError, match="the hello has 131000 bytes"):
        server.feed(memoryview(announced(131_000)))


@pytest.mark.parametrize("long_side", ["client", "server"])
def test_a_certificate_without_end_is_refused_by_either_side(long_side: str) -> None:
    count = HANDSHAKE_BYTES_MAX // 300  # at some 400 bytes; OpenSSL would take 100 KiB
    materials = {
        side: long_chain(who, count if side == long_side else 0)
        for side, who in (("client", CLIENT), ("server", SERVER))
    }
    with pytest.raises(TlsError, match="no end") as caught:
        shake(end(materials["client"], False), end(materials["server"], True))
    assert caught.value.refusal is Reason.HELLO_TOO_LARGE


def test_a_chain_of_ten_is_taken_and_data_after_it_has_no_bound() -> None:
    client = end(long_chain(CLIENT, 10), False)
    server = end(long_chain(SERVER, 10), True)
    shake(client, server, 700)
    assert (client.peer, server.peer) == (SERVER, CLIENT)
    into = memoryview(bytearray(2 * HANDSHAKE_BYTES_MAX))
    server.feed(memoryview(client.write(bytes(HANDSHAKE_BYTES_MAX + 1))))
    assert server.read_into(into) == HANDSHAKE_BYTES_MAX + 1
