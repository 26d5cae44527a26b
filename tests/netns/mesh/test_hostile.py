"""Attacks on the tunnel's port and on the control plane of a running mesh: what must be refused
is, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import hpack
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.lab import changes
from agent.lab.netns import inside
from control.kit.clock import SystemClock
from control.server.ca.keys import load_token_key
from control.server.callers.tokens import NodeTokens
from control.server.main import subject_of
from control.wire import certificates_pb2, node_pb2
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import (
    ADDRESS_TYPE,
    CREATE_CERTIFICATE_METHOD,
    POD_TYPE,
    REPORT_METHOD,
)
from tests.support.certificates import make_authority
from tests.support.lab.mesh_attack import (
    HBONE_PORT,
    PREFACE,
    attacker,
    client_context,
    control_port,
    is_let_in,
    mesh_authority,
    pour,
    shake_hands,
)
from tests.support.lab.mesh_bed import FAMILIES, PORT, Bed, Reply, mesh_bed, soon, speak
from tests.support.peers.delta_client import open_stream, secure_channel
from ztunnel.transport.tls import Material

ID = "spiffe://cluster.local/ns/mesh/sa/client"
RSS_GROWTH_BYTES_MAX = 24 * 1024 * 1024
FLOOD = 10_000
HALF_OPEN = 200


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with mesh_bed(tmp_path_factory.mktemp("hostile")) as made:
        yield made


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


# -- certificates ----------------------------------------------------------------------------


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


# -- requests --------------------------------------------------------------------------------


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


# -- floods ----------------------------------------------------------------------------------


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


# -- the control plane -----------------------------------------------------------------------


def token_of(bed: Bed, node: str, ttl: timedelta = timedelta(hours=1)) -> str:
    key = load_token_key(bed.lab.run_dir / "control" / "state")
    return NodeTokens(key, subject_of("istio-system"), SystemClock()).issue(node, ttl)


def csr(*uris: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def root_pem(bed: Bed) -> bytes:
    return (bed.lab.run_dir / "control" / "state" / "ca" / "root-cert.pem").read_bytes()


async def ask(bed: Bed, port: int, method: str, message: bytes, token: str) -> grpc.StatusCode:
    async with secure_channel(port, root_pem(bed), "tulle-control") as channel:
        call = channel.unary_unary(method)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            await call(message, metadata=metadata, timeout=8)
        except grpc.aio.AioRpcError as exc:
            return exc.code()
        return grpc.StatusCode.OK


def sign(bed: Bed, token: str, csr_pem: str, impersonated: str = "") -> grpc.StatusCode:
    message = certificates_pb2.IstioCertificateRequest(csr=csr_pem, validity_duration=3600)
    if impersonated:
        message.metadata.fields["ImpersonatedIdentity"].string_value = impersonated
    with control_port(bed) as port:
        return asyncio.run(
            ask(bed, port, CREATE_CERTIFICATE_METHOD, message.SerializeToString(), token)
        )


def test_a_node_gets_certificates_of_its_own_pods_only(bed: Bed) -> None:
    here, there = token_of(bed, bed.here), token_of(bed, bed.there)
    assert sign(bed, here, csr(ID)) is grpc.StatusCode.OK
    tampered = here[:-2] + ("AA" if here[-2:] != "AA" else "BB")
    refused = {
        "an account of another node": sign(bed, there, csr(ID)),
        "the same, impersonated": sign(bed, there, csr(), ID),
        "impersonation against the request": sign(
            bed, here, csr(ID), ID.replace("client", "other")
        ),
        "two names": sign(bed, here, csr(ID, ID.replace("client", "other"))),
        "one name twice": sign(bed, here, csr(ID, ID)),
        "another trust domain": sign(bed, here, csr(ID.replace("cluster.local", "evil.local"))),
        "an account nobody runs": sign(bed, here, csr(ID.replace("client", "admin"))),
        "an outsider's account": sign(
            bed, there, csr("spiffe://cluster.local/ns/plain/sa/default")
        ),
        "the tunnel's own": sign(
            bed, here, csr("spiffe://cluster.local/ns/istio-system/sa/ztunnel")
        ),
        "no name": sign(bed, here, csr()),
        "path tricks": sign(bed, here, csr(ID.replace("/sa/", "/../mesh/sa/"))),
        "garbage": sign(bed, here, "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"),
        "huge": sign(bed, here, "A" * 1_000_000),
        "no token": sign(bed, "", csr(ID)),
        "expired token": sign(bed, token_of(bed, bed.here, timedelta(seconds=-5)), csr(ID)),
        "tampered token": sign(bed, tampered, csr(ID)),
        "token without signature": sign(bed, here.rpartition(".")[0] + ".", csr(ID)),
    }
    assert {name: code for name, code in refused.items() if code is grpc.StatusCode.OK} == {}
    soon(lambda: bed.yes(("client", "server", PORT)), "the mesh goes on")


def test_a_node_speaks_for_itself_only(bed: Bed) -> None:
    here = token_of(bed, bed.here)
    report = node_pb2.ReportRequest(node=bed.there, captured_uids=[]).SerializeToString()

    async def streams(node: str, token: str) -> dict[str, bytes]:
        async with secure_channel(port, root_pem(bed), "tulle-control") as channel:
            info = NodeInfo(f"ztunnel~{node}", metadata={"NODE_NAME": node})
            client = DeltaClient(info, (POD_TYPE, ADDRESS_TYPE))
            async with open_stream(channel, client, token) as stream:
                await stream.until(lambda each: POD_TYPE in each.resources)
                return stream.resources[POD_TYPE]

    with control_port(bed) as port:
        code = asyncio.run(ask(bed, port, REPORT_METHOD, report, here))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert len(asyncio.run(streams(bed.here, here))) == 4
        for token in (here, ""):
            with pytest.raises(EOFError):
                asyncio.run(streams(bed.there, token))
    assert bed.yes(("client", "server", PORT))
    assert bed.captured() == {"client", "other", "near", "server"}
