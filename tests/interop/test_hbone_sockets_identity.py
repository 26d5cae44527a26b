"""Admission over real sockets, before any payload byte: to a tunnel, and through it."""

from __future__ import annotations

import logging
import socket
import ssl
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from control.model.policy import Action, Clause, Match, Policy, PolicyScope, Rule, StringMatch
from control.model.policy import StringMatchKind as Kind
from control.model.workload import HBONE_PORT
from tests.support.certificates import make_authority
from tests.support.engine.tunnel_bed import (
    CLIENT,
    SERVER,
    App,
    Bed,
    dial,
    eventually,
    is_reset,
    read_exactly,
)
from ztunnel.connections.inbound import accept_plaintext
from ztunnel.connections.listeners import endpoint_of
from ztunnel.transport.tls import Material

EXPIRED = {"starts": timedelta(hours=-2), "ends": timedelta(hours=-1)}
FUTURE = {"starts": timedelta(hours=1), "ends": timedelta(hours=2)}


def allow(name: str, principal: str) -> Policy:
    match = Match(principals=(StringMatch(Kind.EXACT, principal),))
    return Policy(name, "demo", PolicyScope.NAMESPACE, Action.ALLOW, (Rule((Clause((match,)),)),))


def speaks(mesh: Bed, app: App) -> bool:
    """Does an app connection of the client's pod get an echo?"""
    where = mesh.client.entry(mesh.endpoint(app.port))
    try:
        with dial(where) as sock:
            sock.sendall(b"hello")
            return read_exactly(sock, 5) == b"hello"
    except (ConnectionResetError, BrokenPipeError):
        return False


def refusals(mesh: Bed) -> dict[str, int]:
    return mesh.server.engine.counters.refusals


# -- the server refuses the client ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("uris", "options", "reason"),
    [
        (["spiffe://elsewhere/ns/demo/sa/client"], {}, "peer_trust_domain"),
        (["https://cluster.local/ns/demo/sa/client"], {}, "peer_without_spiffe_id"),
        (["spiffe://cluster.local/demo/client"], {}, "peer_without_spiffe_id"),
        ([], {}, "peer_without_spiffe_id"),
        ([str(CLIENT)], EXPIRED, "peer_certificate"),
        ([str(CLIENT)], FUTURE, "peer_certificate"),
        ([str(CLIENT)], {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]}, "peer_certificate"),
    ],
)
def test_a_client_that_cannot_be_verified_reaches_no_app(
    mesh: Bed, app: App, uris: list[str], options: dict[str, object], reason: str
) -> None:
    mesh.client.has_signer = False  # for another leaf instead of one that has run out
    mesh.client.certify(CLIENT, mesh.authority.issue(*uris, **options))  # type: ignore[arg-type]
    assert not speaks(mesh, app)
    eventually(lambda: refusals(mesh).get(reason) == 1, f"the server counts {reason}")
    assert app.accepted == 0


def test_a_client_of_another_authority_reaches_no_app(mesh: Bed, app: App) -> None:
    stranger = make_authority("other").issue(str(CLIENT))
    known = mesh.authority.issue(str(CLIENT))
    mesh.client.certify(CLIENT, Material(stranger.key_pem, stranger.chain_pem, known.roots_pem))
    assert not speaks(mesh, app)
    eventually(lambda: refusals(mesh).get("peer_certificate") == 1, "the server counts it")
    assert app.accepted == 0


def raw_client(mesh: Bed, material: Material | None, alpn: list[str]) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=mesh.authority.pem.decode())
    if alpn:
        context.set_alpn_protocols(alpn)
    if material is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "both.pem"
            path.write_bytes(material.chain_pem[0] + material.key_pem)
            context.load_cert_chain(path)
    return context.wrap_socket(dial((mesh.address, HBONE_PORT)))


def test_a_client_without_a_certificate_is_refused(mesh: Bed) -> None:
    with pytest.raises(OSError, match=r"alert|reset|EOF|closed"):  # noqa: PT012 either may see it
        sock = raw_client(mesh, None, ["h2"])
        if not sock.recv(1):
            raise OSError("closed")
    eventually(lambda: refusals(mesh).get("tls_handshake") == 1, "the server counts it")


@pytest.mark.parametrize("alpn", [[], ["http/1.1"]])
def test_a_client_that_does_not_speak_http2_is_refused(mesh: Bed, alpn: list[str]) -> None:
    with raw_client(mesh, mesh.authority.issue(str(CLIENT)), alpn) as sock:
        try:
            assert sock.recv(1) == b""
        except OSError:
            pass
    eventually(lambda: refusals(mesh).get("peer_alpn") == 1, "the server counts it")


def test_bytes_that_are_no_tls_are_refused(mesh: Bed) -> None:
    with dial((mesh.address, HBONE_PORT)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        eventually(lambda: refusals(mesh).get("tls_handshake") == 1, "the server counts it")


# -- the client refuses the server ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("spiffe://cluster.local/ns/demo/sa/mallory", {}),
        ("spiffe://elsewhere/ns/demo/sa/server", {}),
        (str(SERVER), EXPIRED),
        (str(SERVER), {"usages": [ExtendedKeyUsageOID.CLIENT_AUTH]}),
    ],
)
def test_a_server_that_is_not_the_expected_one_gets_nothing(
    mesh: Bed, app: App, uri: str, options: dict[str, object]
) -> None:
    mesh.server.has_signer = False
    mesh.server.certify(SERVER, mesh.authority.issue(uri, **options))  # type: ignore[arg-type]
    assert not speaks(mesh, app)
    assert app.accepted == 0
    assert mesh.client.engine.counters.refusals == {"tls_failed": 1}


def test_one_of_several_names_is_enough(mesh: Bed, app: App) -> None:
    mesh.server.certify(SERVER, mesh.authority.issue("https://x.example", str(SERVER)))
    assert speaks(mesh, app)


def test_without_a_certificate_of_its_own_a_pod_waits_for_one(mesh: Bed, app: App) -> None:
    mesh.client.call(lambda: mesh.client.engine.credentials.forget(CLIENT))
    where = mesh.client.entry(mesh.endpoint(app.port))
    with dial(where) as sock:
        sock.sendall(b"hello")
        eventually(lambda: mesh.client.asked == [CLIENT], "the supervisor is asked")
        mesh.client.certify(CLIENT, mesh.authority.issue(str(CLIENT)))
        assert read_exactly(sock, 5) == b"hello"


def test_when_no_certificate_can_be_had_the_connection_fails(mesh: Bed, app: App) -> None:
    mesh.client.call(lambda: mesh.client.engine.credentials.forget(CLIENT))
    with dial(mesh.client.entry(mesh.endpoint(app.port))) as sock:
        eventually(lambda: mesh.client.asked == [CLIENT], "the supervisor is asked")
        mesh.client.call(lambda: mesh.client.engine.credentials.fail(CLIENT))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert mesh.client.engine.counters.refusals == {"no_certificate": 1}


# -- policy --------------------------------------------------------------------------------------


def test_policy_denies_with_401_and_the_tunnel_lives_on(
    mesh: Bed, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    mesh.policies(allow("only-bob", "cluster.local/ns/demo/sa/bob"))
    with caplog.at_level(logging.INFO, "access"):
        assert not speaks(mesh, app)
    assert app.accepted == 0
    (inbound,) = mesh.server.access()
    assert inbound["src.identity"] == str(CLIENT)
    assert "none allowed" in str(inbound["error"])
    (outbound,) = mesh.client.access()
    assert inbound["dst.hbone_addr"] == outbound["dst.hbone_addr"]  # the port that was refused
    assert outbound["error"] == "the peer answered 401"
    mesh.policies(allow("only-client", CLIENT.principal))
    assert speaks(mesh, app)
    assert len(mesh.server.pod.tunnels) == 1


def test_a_dry_run_policy_lets_in_and_says_what_it_would_have_done(
    mesh: Bed, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    mesh.policies(replace(allow("only-bob", "cluster.local/ns/demo/sa/bob"), dry_run=True))
    with caplog.at_level(logging.WARNING, "ztunnel.inbound"):
        assert speaks(mesh, app)
    (said,) = [each for each in caplog.records if each.getMessage() == "policy.would_deny"]
    assert getattr(said, "fields")["policy"] == "no allow policies match"  # noqa: B009 set by `extra`
    assert mesh.server.engine.counters.engine["would_deny"] == 1
    assert mesh.server.engine.counters.refusals == {}


def test_a_policy_change_closes_open_connections_that_it_denies(mesh: Bed, app: App) -> None:
    mesh.policies(allow("only-client", CLIENT.principal))
    with dial(mesh.client.entry(mesh.endpoint(app.port))) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        mesh.policies(allow("only-client", "cluster.local/ns/demo/sa/bob"))
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    (inbound,) = mesh.server.access()
    assert inbound["error"] == "closed due to policy change"
    assert refusals(mesh) == {"policy_changed": 1}


def test_plaintext_is_relayed_while_no_policy_asks_for_an_identity(mesh: Bed, app: App) -> None:
    ours, theirs = socket.create_server(("127.0.0.1", 0)), None
    client = dial(ours.getsockname())
    theirs, _ = ours.accept()
    theirs.setblocking(False)
    peer = endpoint_of(client.getsockname())
    node = mesh.server
    node.call(
        lambda: accept_plaintext(node.engine, node.pod, theirs, peer, mesh.endpoint(app.port))
    )
    client.sendall(b"hello")
    assert read_exactly(client, 5) == b"hello"
    mesh.policies(allow("only-client", CLIENT.principal))
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    ours.close()


def test_a_connection_to_the_tunnels_own_port_is_cut(mesh: Bed) -> None:
    assert is_reset(mesh.serve_plaintext())
    assert refusals(mesh) == {"recursion": 1}


def test_plaintext_is_refused_where_policy_wants_an_identity(mesh: Bed) -> None:
    mesh.policies(allow("only-client", CLIENT.principal))
    where = mesh.serve_plaintext()
    mesh.server.call(mesh.server.pod.own_ports.clear)
    assert is_reset(where)
    assert refusals(mesh) == {"policy": 1}


def test_a_connect_to_the_tunnels_own_port_is_refused(mesh: Bed, app: App) -> None:
    mesh.server.call(lambda: mesh.server.pod.own_ports.add(app.port))
    assert not speaks(mesh, app)
    assert refusals(mesh) == {"recursion": 1}


def test_half_open_handshakes_end_by_their_deadline_and_are_bounded(mesh: Bed) -> None:
    sockets = [dial((mesh.address, HBONE_PORT)) for _ in range(5)]
    eventually(lambda: len(mesh.server.engine.tenants.handshakes) == 5, "all are waiting")
    for sock in sockets:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
    eventually(lambda: len(mesh.server.engine.tenants.handshakes) == 0, "none is left")
