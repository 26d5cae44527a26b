"""Verification of peers; record boundaries hold however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.kit.errors import ConfigError
from control.model.identity import SpiffeId
from tests.support.certificates import Authority, make_authority
from ztunnel.refusals import Reason
from ztunnel.transport.tls import (
    TINY_RECORDS,
    Material,
    TlsClosed,
    TlsConnection,
    TlsContext,
    TlsError,
    expect_one_of,
    expect_trust_domain,
)

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")
AUTHORITY = make_authority()
CLIENT_CONTEXT = TlsContext(AUTHORITY.issue(str(CLIENT)))
SERVER_CONTEXT = TlsContext(AUTHORITY.issue(str(SERVER)))


def ends() -> tuple[TlsConnection, TlsConnection]:
    client = TlsConnection(CLIENT_CONTEXT, False, expect_one_of([SERVER]))
    server = TlsConnection(SERVER_CONTEXT, True, expect_trust_domain("cluster.local"))
    return client, server


def shake(client: TlsConnection, server: TlsConnection) -> None:
    """Pass flights until both ends are done; raises the TlsError of the end that refuses."""
    done = [False, False]
    for _ in range(6):
        for index, (one, other) in enumerate(((client, server), (server, client))):
            if not done[index]:
                try:
                    done[index] = one.handshake() is not None
                finally:
                    flight = one.take()
                    if flight:
                        other.feed(memoryview(flight))
        if all(done):
            return
    raise AssertionError("the handshake does not end")


def read(end: TlsConnection) -> bytes:
    into = memoryview(bytearray(1 << 20))
    data = b""
    while end.waiting:
        count = end.read_into(into)
        data += bytes(into[:count])
    return data


def test_each_end_learns_the_others_identity() -> None:
    client, server = ends()
    shake(client, server)
    assert (client.peer, server.peer) == (SERVER, CLIENT)


@given(
    messages=st.lists(st.integers(1, 60_000), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 70_000), min_size=1, max_size=20),
)
@settings(max_examples=12, deadline=None)
def test_any_cut_of_the_stream_gives_the_same_bytes(messages: list[int], cuts: list[int]) -> None:
    client, server = ends()
    shake(client, server)
    plain = b"".join(bytes([number % 251]) * size for number, size in enumerate(messages))
    position, wire = 0, b""
    for size in messages:
        wire += client.write(plain[position : position + size])
        position += size
    got, start, index = b"", 0, 0
    while start < len(wire):
        size = cuts[index % len(cuts)]
        server.feed(memoryview(wire)[start : start + size])
        got += read(server)
        start += size
        index += 1
    assert got == plain


def test_one_byte_at_a_time() -> None:
    client, server = ends()
    shake(client, server)
    got = b""
    for byte in client.write(b"hello") + client.write(b"again"):
        server.feed(memoryview(bytes([byte])))
        got += read(server)
    assert got == b"helloagain"


def test_goodbye_comes_after_the_last_bytes() -> None:
    client, server = ends()
    shake(client, server)
    server.feed(memoryview(client.write(b"last") + client.close()))
    into = memoryview(bytearray(100_000))
    assert server.read_into(into) == 4
    assert server.waiting
    with pytest.raises(TlsClosed):
        server.read_into(into)


def test_a_changed_byte_ends_the_connection() -> None:
    client, server = ends()
    shake(client, server)
    wire = bytearray(client.write(b"hello"))
    wire[-1] ^= 1
    server.feed(memoryview(wire))
    with pytest.raises(TlsError) as caught:
        server.read_into(memoryview(bytearray(100_000)))
    assert caught.value.refusal is Reason.TLS_BROKEN


def material(authority: Authority, *uris: str) -> TlsContext:
    return TlsContext(authority.issue(*uris))


@pytest.mark.parametrize(
    ("uris", "refusal"),
    [
        (["spiffe://elsewhere/ns/demo/sa/client"], Reason.PEER_TRUST_DOMAIN),
        (["spiffe://elsewhere/ns/demo/sa/client", str(CLIENT)], Reason.PEER_TRUST_DOMAIN),
        (["spiffe://cluster.local/ns/demo/sa/client/more"], Reason.PEER_WITHOUT_SPIFFE_ID),
        (["spiffe://Cluster.Local/ns/demo/sa/client"], Reason.PEER_WITHOUT_SPIFFE_ID),
        (["https://cluster.local"], Reason.PEER_WITHOUT_SPIFFE_ID),
    ],
)
def test_a_server_refuses_names_that_are_not_ours(uris: list[str], refusal: Reason) -> None:
    client = TlsConnection(material(AUTHORITY, *uris), False, expect_one_of([SERVER]))
    server = TlsConnection(SERVER_CONTEXT, True, expect_trust_domain("cluster.local"))
    with pytest.raises(TlsError) as caught:
        shake(client, server)
    assert caught.value.refusal is refusal
    assert server.peer is None


def test_the_first_spiffe_name_is_the_caller() -> None:
    other = "spiffe://cluster.local/ns/demo/sa/other"
    context = material(AUTHORITY, "https://a.example", str(CLIENT), other)
    client = TlsConnection(context, False, expect_one_of([SERVER]))
    server = TlsConnection(SERVER_CONTEXT, True, expect_trust_domain("cluster.local"))
    shake(client, server)
    assert server.peer == CLIENT


def test_the_name_that_was_expected_is_the_server() -> None:
    context = material(AUTHORITY, "spiffe://cluster.local/ns/demo/sa/other", str(SERVER))
    client = TlsConnection(CLIENT_CONTEXT, False, expect_one_of([SERVER]))
    server = TlsConnection(context, True, expect_trust_domain("cluster.local"))
    shake(client, server)
    assert client.peer == SERVER


def test_a_renewed_root_is_enough_to_stop_trusting() -> None:
    stranger = make_authority("other")
    client = TlsConnection(material(stranger, str(CLIENT)), False, expect_one_of([SERVER]))
    server = TlsConnection(SERVER_CONTEXT, True, expect_trust_domain("cluster.local"))
    with pytest.raises(TlsError) as caught:
        shake(client, server)
    assert caught.value.refusal is Reason.PEER_CERTIFICATE


@pytest.mark.parametrize("broken", ["key_pem", "chain_pem", "roots_pem"])
def test_unusable_material_is_an_error_of_its_giver(broken: str) -> None:
    good = AUTHORITY.issue(str(CLIENT))
    parts = {
        "key_pem": good.key_pem,
        "chain_pem": good.chain_pem,
        "roots_pem": good.roots_pem,
        broken: (b"nonsense",) if broken == "chain_pem" else b"nonsense",
    }
    with pytest.raises(ConfigError):
        TlsContext(Material(**parts))  # type: ignore[arg-type]  # built by name above


def test_a_key_of_another_certificate_is_refused() -> None:
    one, other = AUTHORITY.issue(str(CLIENT)), AUTHORITY.issue(str(CLIENT))
    with pytest.raises(ConfigError):
        TlsContext(Material(other.key_pem, one.chain_pem, one.roots_pem))


def test_material_hides_its_key() -> None:
    assert "KEY" not in repr(AUTHORITY.issue(str(CLIENT)))


def talking() -> tuple[TlsConnection, TlsConnection]:
    """Two ends that have nothing left of the handshake."""
    client, server = ends()
    shake(client, server)
    server.feed(memoryview(client.write(b"hello")))
    assert read(server) == b"hello"
    server.take_silent()
    return client, server


@pytest.mark.parametrize(("size", "counted"), [(1, True), (4, True), (9, False), (200, False)])
def test_records_with_next_to_no_data_are_as_good_as_silent(size: int, counted: bool) -> None:
    client, server = talking()
    for _ in range(4 * TINY_RECORDS):
        server.feed(memoryview(client.write(bytes(size))))
    assert read(server) == bytes(4 * TINY_RECORDS * size)
    assert (server.take_silent() > 0) is counted


def test_a_few_tiny_records_are_no_trouble() -> None:
    client, server = talking()
    for _ in range(100):
        for _ in range(TINY_RECORDS):
            server.feed(memoryview(client.write(b"x")))
        assert read(server) == bytes(b"x" * TINY_RECORDS)
    assert not server.take_silent()
