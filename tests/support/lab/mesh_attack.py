"""A hostile HBONE peer: any certificate, any bytes, from any pod's namespace; and its way to the
control plane's port."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.lab import plan
from agent.lab.netns import inside
from tests.support.certificates import Authority
from tests.support.lab.mesh_bed import Bed
from ztunnel.transport.tls import Material

HBONE_PORT = 15008
CONTROL_PORT = 15012
ANSWER_S = 8.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PIECE_BYTES = 65536


def mesh_authority(bed: Bed) -> Authority:
    """The mesh's own CA with its key, as if somebody had got hold of both."""
    pem = (bed.lab.run_dir / "control" / "state" / "ca" / "ca.pem").read_bytes()
    key = load_pem_private_key(pem, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return Authority(key, x509.load_pem_x509_certificate(pem))


def client_context(
    folder: Path, material: Material | None, alpn: Sequence[str] = ("h2",)
) -> ssl.SSLContext:
    """Shows `material`, and takes any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if material is not None:
        file = folder / "leaf.pem"
        file.write_bytes(material.key_pem + b"".join(material.chain_pem))
        context.load_cert_chain(file)
        file.unlink()
    return context


@dataclass
class Attacker:
    """One TLS connection with HTTP/2 on it. `status` maps streams to their answers."""

    tls: ssl.SSLSocket
    http: h2.connection.H2Connection
    status: dict[int, int] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    over: bool = False

    def connect(self, authority: str, *extra: tuple[str, str], method: str = "CONNECT") -> int:
        """Ask once and wait: the status, or 0 when the stream or the tunnel ended without one."""
        stream = self.http.get_next_available_stream_id()
        headers = [(":method", method), (":authority", authority)]
        if method != "CONNECT":
            headers += [(":scheme", "https"), (":path", "/")]
        self.http.send_headers(stream, headers + list(extra))
        self.flush()
        while stream not in self.status and stream not in self.ended and not self.over:
            self.turn()
        self.last = stream
        return self.status.get(stream, 0)

    def line(self, text: str) -> str:
        """Say a line on the last stream and wait for one back."""
        self.http.send_data(self.last, f"{text}\n".encode())
        self.flush()
        while b"\n" not in self.data.get(self.last, b"") and not self.over:
            self.turn()
        return self.data.pop(self.last, b"").decode()

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.tls.sendall(self.http.data_to_send())

    def turn(self) -> None:
        try:
            received = self.tls.recv(PIECE_BYTES)
        except TimeoutError:
            raise
        except OSError:
            received = b""
        if not received:
            self.over = True
            return
        for event in self.http.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                named = dict(event.headers or ())
                self.status[event.stream_id] = int(named[":status"])
            elif isinstance(event, h2.events.DataReceived):
                have = self.data.get(event.stream_id, b"")
                self.data[event.stream_id] = have + (event.data or b"")
            elif isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.over = True
        self.flush()


def shake_hands(
    bed: Bed, name: str, address: str, context: ssl.SSLContext, server_name: str | None = None
) -> ssl.SSLSocket:
    """From a pod that is not captured, else the kernel would send us through its own tunnel."""
    sock = bed.socket(name, 6 if ":" in address else 4)
    try:
        sock.settimeout(ANSWER_S)
        sock.connect((address, HBONE_PORT))
        return context.wrap_socket(sock, server_hostname=server_name)
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def attacker(bed: Bed, address: str, context: ssl.SSLContext) -> Iterator[Attacker]:
    config = h2.config.H2Configuration(
        client_side=True,
        header_encoding="utf-8",
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    with shake_hands(bed, "stranger", address, context) as tls:
        made = Attacker(tls, h2.connection.H2Connection(config))
        made.http.initiate_connection()
        made.flush()
        yield made


def is_let_in(bed: Bed, address: str, context: ssl.SSLContext) -> bool:
    """True when the server speaks HTTP/2, which it does only after it has verified us."""
    try:
        with shake_hands(bed, "stranger", address, context) as tls:
            tls.sendall(PREFACE + bytes.fromhex("000000040000000000"))
            return bool(tls.recv(1))
    except TimeoutError:
        raise
    except OSError:
        return False


def pour(tls: ssl.SSLSocket, data: bytes) -> bool:
    """Send it all without reading an answer; False when the other side ended it before."""
    try:
        tls.sendall(data)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def control_port(bed: Bed) -> Iterator[int]:
    """A loopback port that leads to the control plane of the lab, from a node's namespace."""
    lab = bed.lab.store.load()
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:

        def serve() -> None:
            while True:
                try:
                    near = stack.enter_context(server.accept()[0])
                except OSError:
                    return
                with inside(lab.node(bed.here).netns):
                    far = stack.enter_context(socket.socket())
                far.connect((plan.uplink(0).v4, CONTROL_PORT))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=(one, other), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(PIECE_BYTES):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
