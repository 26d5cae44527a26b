"""Raw sockets, TLS and HTTP/2 frames for peers that keep no rule."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from control.model.workload import HBONE_PORT
from tests.support.certificates import Authority
from ztunnel.transport.tls import Material

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS = range(5)
PING, GOAWAY, WINDOW, CONTINUATION = range(6, 10)
END_HEADERS = 4
WAIT_S = 5.0
EVIL = "spiffe://cluster.local/ns/demo/sa/evil"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def setting(name: int, value: int) -> bytes:
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def connect_fields(authority: str) -> bytes:
    """A header block without state: literals that nobody keeps."""
    named = authority.encode()
    return b"\x02\x07CONNECT\x01" + bytes([len(named)]) + named


def ask(stream: int, authority: str) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, connect_fields(authority))


def window(stream: int, more: int) -> bytes:
    return frame(WINDOW, 0, stream, more.to_bytes(4, "big"))


@dataclass
class Target:
    """The worker as an attacker sees it, and the count of what the attacker has done."""

    address: str  # the victim's pod, with its HBONE port
    echo: str  # host:port of an app there that answers
    endless: str  # host:port of an app there that sends without end
    plaintext: tuple[str, int]  # a listener of the victim's pod
    passing: tuple[str, int]  # the same, by an address that leads on to an app that answers
    outbound: int  # port of the hostile pod's outbound listener
    evil_address: str  # where a server that is dialled listens; ours to use
    nobody: str  # an address of the mesh where nobody listens
    remote: tuple[str, int]  # an honest server elsewhere, as the victim's own apps dial it
    authority: Authority
    # No lock: there is one writer, which may be killed at any moment.
    done: ctypes.c_int64

    def did(self, count: int = 1) -> None:
        self.done.value += count

    def material(self, who: str = EVIL) -> Material:
        return self.authority.issue(who)


def context(material: Material | None, *, server: bool = False) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.set_alpn_protocols(["h2"])
    if material is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(material.key_pem + b"".join(material.chain_pem))
            file.flush()
            made.load_cert_chain(file.name)
    return made


def source_address(pid: int = 0) -> str:
    """An address of 127/8 that no other process has, but for one in 128."""
    return f"127.{64 + (pid or os.getpid()) % 128}.250.7"


def dial_raw(target: Target) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(WAIT_S)
    sock.bind((source_address(), 0))
    sock.connect((target.address, HBONE_PORT))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def dial(target: Target, shown: ssl.SSLContext, settings: bytes = b"") -> ssl.SSLSocket:
    """A tunnel: the handshake, the preface and our SETTINGS."""
    raw = dial_raw(target)
    try:
        tls = shown.wrap_socket(raw)
        tls.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
    except BaseException:
        raw.close()
        raise
    return tls


def drain(tls: ssl.SSLSocket) -> bool:
    """Read what has come, and throw it away; False when the other end is over."""
    tls.settimeout(0)
    try:
        while True:
            if not tls.recv(1 << 16):
                return False
    except (ssl.SSLWantReadError, BlockingIOError):
        return True
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            tls.settimeout(WAIT_S)


def pour(
    target: Target, shown: ssl.SSLContext, pieces: Callable[[], Iterator[bytes]], each: int
) -> None:
    """Send pieces of `each` operations for ever, on a new tunnel as soon as one is ended."""
    while True:
        with contextlib.suppress(OSError), dial(target, shown) as tls:
            for piece in pieces():
                tls.sendall(piece)
                target.did(each)
                if not drain(tls):
                    break
