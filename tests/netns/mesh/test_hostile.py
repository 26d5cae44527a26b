"""Attacks on the tunnel's port and on the control plane of a running mesh: what must be refused
is, and nobody else notices."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import hpack
import psutil
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.lab import changes
from agent.lab.netns import inside
from tests.netns.mesh.hostile_rig import ID
from tests.support.certificates import make_authority
from tests.support.lab.mesh_attack import (
    HBONE_PORT,
    PREFACE,
    attacker,
    client_context,
    is_let_in,
    mesh_authority,
    pour,
    shake_hands,
)
from tests.support.lab.mesh_bed import FAMILIES, PORT, Bed, Reply, soon, speak
from ztunnel.transport.tls import Material

pytestmark = pytest.mark.alone

RSS_GROWTH_BYTES_MAX = 24 * 1024 * 1024


FLOOD = 10_000


HALF_OPEN = 200


@pytest.fixture
def insider(bed: Bed, tmp_path: Path) -> ssl.SSLContext:
    """A valid certificate of the mesh, in the hands of somebody at another address."""
    return client_context(tmp_path, mesh_authority(bed).issue(ID))


@contextlib.contextmanager
def traffic(bed: Bed) -> Iterator[None]:
    """Others use old and new tunnels to the same pods all the while, and none fails."""
    stop, failures, rounds = threading.Event(), [], []

    def work() -> None:
        try:
            with bed.connect("client", "server", 4) as old:
                while not stop.is_set() or not rounds:
                    assert speak(old)
                    for name in ("other", "client"):
                        for family in FAMILIES:
                            assert bed.reach(name, "server", family) is Reply.ANSWERED
                    rounds.append(1)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert failures == []
    assert rounds


def resident_bytes(bed: Bed) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in bed.workers(bed.there))


def credentials(bed: Bed) -> dict[str, Material]:
    ours, foreign = mesh_authority(bed), make_authority("cluster.local")
    client_only = (ExtendedKeyUsageOID.SERVER_AUTH,)
    return {
        "another authority": foreign.issue(ID),
        "expired": ours.issue(ID, starts=timedelta(hours=-2), ends=timedelta(hours=-1)),
        "not yet valid": ours.issue(ID, starts=timedelta(hours=1), ends=timedelta(hours=2)),
        "another trust domain": ours.issue(ID.replace("cluster.local", "cluster.locale")),
        "no name": ours.issue(),
        "not spiffe": ours.issue("https://cluster.local/ns/mesh/sa/client"),
        "no account": ours.issue("spiffe://cluster.local/ns/mesh"),
        "for servers only": ours.issue(ID, usages=client_only),
    }


BAD = (
    "another authority",
    "expired",
    "not yet valid",
    "another trust domain",
    "no name",
    "not spiffe",
    "no account",
    "for servers only",
)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BAD)
def test_a_wrong_certificate_gets_no_word(bed: Bed, name: str, family: int, tmp_path: Path) -> None:
    context = client_context(tmp_path, credentials(bed)[name])
    for target in ("server", "near"):
        assert not is_let_in(bed, bed.address(target, family), context)
    assert bed.yes(("client", "server", PORT))


def test_only_tls_13_with_http2_is_spoken(
    bed: Bed, tmp_path: Path, insider: ssl.SSLContext
) -> None:
    address, leaf = bed.address("server", 4), mesh_authority(bed).issue(ID)
    assert is_let_in(bed, address, insider)
    old = client_context(tmp_path, leaf)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not is_let_in(bed, address, old)
    for alpn in ((), ("http/1.1",), ("h2c", "h3")):
        assert not is_let_in(bed, address, client_context(tmp_path, leaf, alpn))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_authority_leads_to_the_pod_itself_or_nowhere(
    bed: Bed, insider: ssl.SSLContext, family: int
) -> None:
    own, near = bed.address("server", family), bed.address("near", family)
    shown = {host: f"[{host}]" if ":" in host else host for host in (own, near)}
    expected = {
        f"{shown[own]}:{PORT}": {200},
        f"{shown[near]}:{PORT}": {400},
        f"{shown[own]}:15008": {503},
        f"{shown[own]}:15001": {503},
        f"{shown[own]}:15006": {503},
        f"{shown[own]}:0": {400},
        f"{shown[own]}:65536": {400},
        f"{shown[own]}:-1": {400},
        f"{shown[own]}:+{PORT}": {400},
        f"{shown[own]}:{PORT} ": {0, 400},
        f"{shown[own]}": {400},
        f"{shown[own]}:": {400},
        f"a@{shown[own]}:{PORT}": {400},
        f"{shown[own]}:{PORT}/x": {400},
        f"127.0.0.1:{PORT}": {400},
        f"[::1]:{PORT}": {400},
        f"0.0.0.0:{PORT}": {400},
        f"[::]:{PORT}": {400},
        f"[fe80::1%eth0]:{PORT}": {400},
        f"localhost:{PORT}": {503},
        f"server.mesh:{PORT}": {503},
        f"kubernetes.default.svc.cluster.local:{PORT}": {503},
        "": {0, 400},
        ":" * 400: {0, 400},
        "a" * 9000: {0, 400},
    }
    found = {}
    for authority in expected:
        with attacker(bed, own, insider) as peer:
            found[authority] = peer.connect(authority)
    wrong = {key: found[key] for key, allowed in expected.items() if found[key] not in allowed}
    assert wrong == {}


def test_several_answers_on_one_tunnel_and_other_methods(bed: Bed, insider: ssl.SSLContext) -> None:
    own = bed.address("server", 4)
    with attacker(bed, own, insider) as peer:
        assert peer.connect(f"10.9.9.9:{PORT}") == 400
        assert peer.connect(f"{own}:{PORT}", method="GET") in (0, 400)
        if not peer.over:
            assert peer.connect(f"{own}:{PORT}") == 200
            assert peer.line("hello").endswith(" hello\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_header_names_no_other_client(bed: Bed, insider: ssl.SSLContext, family: int) -> None:
    """The app sees the address of the tunnel's other end, whatever its peer claims."""
    own, stranger = bed.address("server", family), bed.address("stranger", family)
    forged = "[fd71:1::2]:99" if family == 6 else "10.71.1.2:99"
    claims = (f'for="{forged}"', "for=1.2.3.4", f'for="{forged}";host=x, for="{forged}"', "\x00")
    for claim in claims:
        with attacker(bed, own, insider) as peer:
            extra = [("forwarded", claim), ("x-forwarded-for", forged), ("baggage", "k=v" * 500)]
            if peer.connect(f"[{own}]:{PORT}" if family == 6 else f"{own}:{PORT}", *extra) == 200:
                host = peer.line("x").split()[0]
                assert host.removeprefix("::ffff:") == stranger


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4)
    return head + payload


def request(encoder: hpack.Encoder, stream: int, authority: str, flags: int = 4) -> bytes:
    fields = [(":method", "CONNECT"), (":authority", authority)]
    return frame(1, flags, stream, encoder.encode(fields))


def rapid_reset(authority: str) -> bytes:
    encoder = hpack.Encoder()
    cancel = (8).to_bytes(4)
    pairs = (
        request(encoder, number, authority) + frame(3, 0, number, cancel)
        for number in range(1, 2 * FLOOD, 2)
    )
    return b"".join(pairs)


def continuations(authority: str) -> bytes:
    return request(hpack.Encoder(), 1, authority, 0) + frame(9, 0, 1, b"\x00\x01a\x01b" * 40) * 500


FLOODS = {
    "rapid reset": rapid_reset,
    "settings": lambda _: frame(4, 0, 0) * FLOOD,
    "settings that change windows": lambda _: frame(4, 0, 0, b"\0\4\0\0\1\0") * FLOOD,
    "pings": lambda _: frame(6, 0, 0, bytes(8)) * FLOOD * 10,
    "empty data": lambda who: request(hpack.Encoder(), 1, who) + frame(0, 0, 1) * FLOOD * 10,
    "window updates of zero": lambda _: frame(8, 0, 0, bytes(4)) * FLOOD,
    "priorities": lambda _: frame(2, 0, 1, b"\0\0\0\3\1") * FLOOD * 10,
    "continuations": continuations,
    "a frame too large": lambda _: frame(0, 0, 1, bytes(0xFFFFF)) * 4,
    "not http": lambda _: b"\xff" * 1_000_000,
    "many streams": lambda who: b"".join(
        request(encoder, number, who)
        for encoder in [hpack.Encoder()]
        for number in range(1, 4001, 2)
    ),
}


BORNE = {"many streams"}  # more than 200 are refused one by one


def hung_up(tls: ssl.SSLSocket) -> bool:
    """True when the server ended the connection by itself."""
    try:
        while tls.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_on_a_valid_tunnel_harms_only_itself(
    bed: Bed, insider: ssl.SSLContext, name: str
) -> None:
    own = bed.address("server", 4)
    before = resident_bytes(bed)
    with traffic(bed), shake_hands(bed, "stranger", own, insider) as tls:
        tls.settimeout(3)
        pour(tls, PREFACE + frame(4, 0, 0) + FLOODS[name](f"{own}:{PORT}"))
        assert resident_bytes(bed) - before < RSS_GROWTH_BYTES_MAX
        assert hung_up(tls) or name in BORNE
    soon(lambda: resident_bytes(bed) - before < RSS_GROWTH_BYTES_MAX, "memory is given back")
    assert bed.yes(("client", "server", PORT), ("other", "server", PORT))


@contextlib.contextmanager
def half_open(bed: Bed, count: int, family: int) -> Iterator[None]:
    """So many TCP connections of an outsider that say nothing, or begin to; some may be cut."""
    hello = bytes.fromhex("16030100c8010000c40303")
    with contextlib.ExitStack() as stack:
        for number in range(count):
            sock = stack.enter_context(bed.socket("stranger", family))
            with contextlib.suppress(ConnectionError):
                sock.connect((bed.address("server", family), HBONE_PORT))
                if number % 2:
                    sock.sendall(hello[: number % len(hello)])
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_half_open_handshakes_do_not_keep_others_out(bed: Bed, family: int) -> None:
    before = resident_bytes(bed)
    with half_open(bed, HALF_OPEN, family):
        with traffic(bed):
            assert resident_bytes(bed) - before < RSS_GROWTH_BYTES_MAX
        assert new_tunnel(bed, family)
    assert new_tunnel(bed, family)


def test_one_outsider_cannot_use_up_all_handshakes(bed: Bed) -> None:
    changes.restart(bed.lab, "ztunnel", bed.here)  # its pods need new tunnels
    soon(lambda: bed.yes(("server", "near", PORT)), "certificates are there")
    with half_open(bed, 2 * HALF_OPEN, 4):
        assert new_tunnel(bed, 6)
        assert bed.yes(("client", "server", PORT))


def test_a_web_page_on_the_node_cannot_stop_the_tunnel(bed: Bed) -> None:
    """A browser or a forged server-side request may send these; the unix socket is for admins."""
    port, before = 15000, bed.workers(bed.there)
    request = "POST {} HTTP/1.1\r\nhost: evil.example\r\norigin: http://evil.example\r\n"
    for page in ("/logging?level=debug", "/quitquitquit"):
        with inside(bed.lab.store.load().node(bed.there).netns):
            sock = socket.socket()
        with sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", port))
            sock.sendall(f"{request.format(page)}content-length: 0\r\n\r\n".encode())
            status = sock.recv(4096).split()[1]
        try:
            assert status.startswith(b"4")
        finally:
            if page == "/quitquitquit" and not status.startswith(b"4"):
                changes.restart(bed.lab, "ztunnel", bed.there)
                bed.wait_captured()
    assert bed.workers(bed.there) == before


def new_tunnel(bed: Bed, family: int) -> bool:
    """`near` has the same node as the client but its tunnels are its own."""
    return bed.reach("near", "server", family) is Reply.ANSWERED


def test_one_byte_at_a_time_is_only_slow(bed: Bed, insider: ssl.SSLContext) -> None:
    own = bed.address("server", 4)
    with traffic(bed), attacker(bed, own, insider) as peer:
        peer.http.send_headers(1, [(":method", "CONNECT"), (":authority", f"{own}:{PORT}")])
        for byte in peer.http.data_to_send():
            peer.tls.sendall(bytes([byte]))
        while 1 not in peer.status:
            peer.turn()
        assert peer.status[1] == 200


def test_a_peer_that_never_reads_holds_bounded_memory(bed: Bed, insider: ssl.SSLContext) -> None:
    """It makes the app answer with megabytes, and takes none."""
    own = bed.address("server", 4)
    before = resident_bytes(bed)
    with attacker(bed, own, insider) as peer:
        for _ in range(4):
            assert peer.connect(f"{own}:{PORT}") == 200
        peer.tls.settimeout(0.2)
        line = b"y" * 16_000 + b"\n"
        encoded = b"".join(frame(0, 0, 2 * n + 1, line) for n in range(4)) * 100
        pour(peer.tls, encoded)
        with traffic(bed):
            assert resident_bytes(bed) - before < RSS_GROWTH_BYTES_MAX
    assert bed.yes(("client", "server", PORT))
