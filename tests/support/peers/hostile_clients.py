"""Attacks on the server side of a tunnel. Each runs in a process of its own until it is killed."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator

from tests.support.peers.hostile import (
    CONTINUATION,
    DATA,
    EVIL,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST,
    SETTINGS,
    Target,
    ask,
    connect_fields,
    context,
    dial,
    dial_raw,
    drain,
    frame,
    pour,
    setting,
    source_address,
    window,
)
from tests.support.peers.openssl import OpensslClient

BATCH = 200
STREAMS = 50
HELD = 1000  # many times as many handshakes as a worker lets be under way
LARGEST_WINDOW = 2**31 - 1
OTHER_POD = "192.0.2.1:80"


def idle_tunnels(target: Target) -> None:
    shown, held = context(target.material()), []
    while True:
        with contextlib.suppress(OSError):
            held.append(dial(target, shown))
            target.did()


def silent_handshakes(target: Target) -> None:
    held = []
    while True:
        with contextlib.suppress(OSError):
            held.append(dial_raw(target))
            target.did()
        del held[:-HELD]


def failed_handshakes(target: Target) -> None:
    shown = context(None)
    while True:
        with contextlib.suppress(OSError), shown.wrap_socket(dial_raw(target)) as tls:
            tls.recv(1)
        target.did()


def each_in_a_stream(one: Callable[[int], bytes]) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        for first in itertools.count(1, 2 * STREAMS):
            yield b"".join(one(first + 2 * n) for n in range(STREAMS))

    return pieces


def denied_connects(target: Target) -> None:
    pour(target, context(target.material()), each_in_a_stream(lambda n: ask(n, OTHER_POD)), STREAMS)


def connect_and_reset(target: Target) -> None:
    def one(stream: int) -> bytes:
        return ask(stream, target.echo) + frame(RST, 0, stream, (8).to_bytes(4, "big"))

    pour(target, context(target.material()), each_in_a_stream(one), STREAMS)


def _same(piece: bytes, first: bytes = b"") -> Callable[[Target], None]:
    def attack(target: Target) -> None:
        def pieces() -> Iterator[bytes]:
            yield first
            yield from itertools.repeat(piece * BATCH)

        pour(target, context(target.material()), pieces, BATCH)

    return attack


pings = _same(frame(PING, 0, 0, bytes(8)))
settings = _same(frame(SETTINGS))
windows = _same(window(0, 1))
priorities = _same(frame(PRIORITY, 0, 3, bytes(5)))


def _on_stream(piece: bytes) -> Callable[[Target], None]:
    def attack(target: Target) -> None:
        _same(piece, ask(1, target.echo))(target)

    return attack


empty_data = _on_stream(frame(DATA, 0, 1))
one_byte_data = _on_stream(frame(DATA, 0, 1, b"x"))


def _at_once(*attacks: Callable[[Target], None]) -> Callable[[Target], None]:
    """All of them, each in a thread."""

    def attack(target: Target) -> None:
        for each in attacks[1:]:
            threading.Thread(target=each, args=(target,), daemon=True).start()
        attacks[0](target)

    return attack


many_handshakes = _at_once(*[failed_handshakes] * 8)
many_tunnels = _at_once(*[one_byte_data] * 8)
goaways = _same(frame(GOAWAY, 0, 0, bytes(8)))


def many_identities(target: Target) -> None:
    """The same flood from eight pods of one host, each with an account of its own."""

    def one(number: int) -> Callable[[Target], None]:
        def attack(target: Target) -> None:
            shown = context(target.material(f"{EVIL}{number}"))

            def pieces() -> Iterator[bytes]:
                yield ask(1, target.echo)
                yield from itertools.repeat(frame(DATA, 0, 1, b"x") * BATCH)

            pour(target, shown, pieces, BATCH)

        return attack

    _at_once(*[one(number) for number in range(8)])(target)


def tiny_windows(target: Target) -> None:
    """An app that sends without end, one byte for each WINDOW_UPDATE."""
    shown = context(target.material())
    piece = window(1, 1) * BATCH
    while True:
        with contextlib.suppress(OSError), dial(target, shown, setting(4, 1)) as tls:
            tls.sendall(window(0, LARGEST_WINDOW - 65535) + ask(1, target.endless))
            while drain(tls):
                tls.sendall(piece)
                target.did(BATCH)


def data_and_reset(target: Target) -> None:
    def one(stream: int) -> bytes:
        last = frame(DATA, 0, stream, bytes(64)) + frame(RST, 0, stream, (8).to_bytes(4, "big"))
        return ask(stream, target.echo) + last

    pour(target, context(target.material()), each_in_a_stream(one), STREAMS)


def short_requests(target: Target) -> None:
    """Requests that keep all rules, a hundred under way."""

    def one(stream: int) -> bytes:
        return ask(stream, target.echo) + frame(DATA, 1, stream, bytes(64))

    shown, numbers = context(target.material()), itertools.count(1, 2)
    while True:
        with contextlib.suppress(OSError), dial(target, shown) as tls:
            numbers = itertools.count(1, 2)
            tls.sendall(window(0, LARGEST_WINDOW - 65535))
            tls.sendall(b"".join(one(next(numbers)) for _ in range(100)))
            held = b""
            while more := tls.recv(1 << 16):
                held += more
                over = 0
                while len(held) >= 9:
                    size = 9 + int.from_bytes(held[:3], "big")
                    if len(held) < size:
                        break
                    over += held[3] in (DATA, HEADERS) and held[4] & 1
                    held = held[size:]
                tls.sendall(b"".join(one(next(numbers)) for _ in range(over)))
                target.did(over)


def _endless_streams(target: Target) -> Iterator[ssl.SSLSocket]:
    """Ten tunnels of twenty streams from an app that sends without end, all windows open."""
    shown = context(target.material())
    for _ in range(10):
        tls = dial(target, shown, setting(4, LARGEST_WINDOW))
        tls.sendall(window(0, LARGEST_WINDOW - 65535))
        tls.sendall(b"".join(ask(n, target.endless) for n in range(1, 40, 2)))
        yield tls


def slow_reads(target: Target) -> None:
    """As much as is let in waits in many streams, and is read a little at a time."""
    held = list(_endless_streams(target))
    while True:
        for each in held:
            with contextlib.suppress(OSError):
                each.recv(1024)
                target.did()


def tiny_records(target: Target) -> None:
    """DATA as a stream of TLS records of one byte each."""
    shown = context(target.material())
    message = frame(DATA, 0, 1, b"x")
    while True:
        with contextlib.suppress(OSError), dial(target, shown) as tls:
            tls.sendall(ask(1, target.echo))
            while drain(tls):
                for _ in range(BATCH):
                    for at in range(len(message)):
                        tls.send(message[at : at + 1])
                target.did(BATCH * len(message))


def plaintext_connections(target: Target) -> None:
    """Connections to a pod's plaintext listener, reset as soon as they are open."""
    linger = struct.pack("ii", 1, 0)
    while True:
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.bind((source_address(), 0))
            sock.connect(target.plaintext)
        target.did()


def continuations(target: Target) -> None:
    start = frame(HEADERS, 0, 1, connect_fields(target.echo))
    _same(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"), start)(target)


def huge_headers(target: Target) -> None:
    """Blocks of 12,000 fields, each of them one byte on the wire."""

    def one(stream: int) -> bytes:
        return frame(HEADERS, 4, stream, connect_fields(target.echo) + b"\x84" * 12_000)

    pour(target, context(target.material()), each_in_a_stream(one), STREAMS)


def key_updates(target: Target) -> None:
    material = target.material()
    while True:
        with contextlib.suppress(OSError, AssertionError), dial_raw(target) as raw:
            raw.settimeout(None)
            peer = OpensslClient(raw.fileno(), material)
            if not peer.shake_hands():
                continue
            peer.write(PREFACE + frame(SETTINGS))
            while peer.update_key():
                target.did()


def never_reads(target: Target) -> None:
    """Streams from an app that sends without end, all windows open, and nothing is read."""
    held = []
    for tls in _endless_streams(target):
        held.append(tls)
        target.did(20)
    time.sleep(60)
