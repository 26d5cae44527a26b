"""More attacks on the server side of a tunnel, and on a plaintext listener: most of them keep every
rule, and each operation is cheap for the attacker and dear for the worker."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from tests.support.peers.hostile import (
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    RST,
    Target,
    ask,
    connect_fields,
    context,
    dial,
    frame,
    pour,
)
from tests.support.peers.hostile_clients import STREAMS, each_in_a_stream

END_STREAM, PADDED = 1, 8
CANCEL = (8).to_bytes(4, "big")
AT_ONCE = 8
LINGER_NOT = struct.pack("ii", 1, 0)


def _threads(attack: Callable[[Target], None]) -> Callable[[Target], None]:
    def attack_at_once(target: Target) -> None:
        for _ in range(AT_ONCE - 1):
            threading.Thread(target=attack, args=(target,), daemon=True).start()
        attack(target)

    return attack_at_once


def ended_at_once(target: Target) -> None:
    """Streams whose request ends them, as fast as they are taken."""

    def one(stream: int) -> bytes:
        flags = END_HEADERS | END_STREAM
        return frame(HEADERS, flags, stream, connect_fields(target.echo))

    pour(target, context(target.material()), each_in_a_stream(one), STREAMS)


def trailers(target: Target) -> None:
    """The same, by trailers."""
    last = b"\x00\x01a\x01b"

    def one(stream: int) -> bytes:
        end = frame(HEADERS, END_HEADERS | END_STREAM, stream, last)
        return ask(stream, target.echo) + end

    pour(target, context(target.material()), each_in_a_stream(one), STREAMS)


def closed_port(target: Target) -> None:
    """Requests for a port of the pod where nobody listens."""
    with socket.socket() as sock:
        sock.bind((target.address, 0))  # and does not listen
        nobody = f"{target.address}:{sock.getsockname()[1]}"
        pour(
            target, context(target.material()), each_in_a_stream(lambda n: ask(n, nobody)), STREAMS
        )


def full_app(target: Target) -> None:
    """Requests for an app that takes no connection, given up and asked again."""
    with socket.socket() as app, socket.socket() as first, socket.socket() as second:
        app.bind((target.address, 0))
        app.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(app.getsockname())
        where = f"{target.address}:{app.getsockname()[1]}"

        def one(stream: int) -> bytes:
            return ask(stream, where) + frame(RST, 0, max(1, stream - 100), CANCEL)

        pour(target, context(target.material()), each_in_a_stream(one), STREAMS)


def padded_data(target: Target) -> None:
    piece = frame(DATA, PADDED, 1, bytes([255]) + b"x" + bytes(255))

    def pieces() -> Iterator[bytes]:
        yield ask(1, target.echo)
        yield from itertools.repeat(piece * STREAMS)

    pour(target, context(target.material()), pieces, STREAMS)


def _tunnel_each(target: Target) -> None:
    shown = context(target.material())
    first = ask(1, target.echo) + frame(DATA, END_STREAM, 1, b"x") + frame(GOAWAY, 0, 0, bytes(8))
    while True:
        with contextlib.suppress(OSError), dial(target, shown) as tls:
            tls.sendall(first)
            while tls.recv(1 << 16):
                pass
        target.did()


tunnel_each = _threads(_tunnel_each)


def _anywhere(target: Target) -> None:
    """A short plaintext connection that keeps every rule, each from another address."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.settimeout(2)
            sock.bind((f"127.250.{random.randrange(256)}.{random.randrange(1, 255)}", 0))
            sock.connect(target.passing)
            sock.sendall(b"x")
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 12):
                pass
        target.did()


anywhere = _threads(_anywhere)


def _cut_outbound(target: Target) -> None:
    """Connections of the hostile pod to an honest server elsewhere, reset when they have asked."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.settimeout(2)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            sock.connect((target.remote[0], target.outbound))
            sock.sendall(b"x")
        target.did()


cut_outbound = _threads(_cut_outbound)
