"""Neighbours of the battery, whose rate is measured: each uses the worker in a way of its own.

Their `done` counts requests of MESSAGE_BYTES that came back whole.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from tests.support.peers.hostile import (
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    RST,
    SETTINGS,
    Target,
    ask,
    context,
    dial,
    frame,
    setting,
    window,
)

NEIGHBOUR = "spiffe://cluster.local/ns/demo/sa/neighbour"
REMOTE = "spiffe://cluster.local/ns/demo/sa/remote"
MESSAGE_BYTES = 64
MESSAGE = bytes(MESSAGE_BYTES)
UNDER_WAY = 8
REFILL_BYTES = 32_000  # for which the windows are opened again at once
END_STREAM, ACK = 1, 1
WAIT_S = 10.0
Frame = tuple[int, int, int, bytes]


class Reader:
    """Frames that come, one after the other."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self._held = b""

    def frames(self) -> Iterator[Frame]:
        """Wait for at least one."""
        found = 0
        while not found:
            more = self._tls.recv(1 << 16)
            if not more:
                raise ConnectionResetError("the tunnel was ended")
            self._held += more
            at = 0
            while at + 9 <= len(self._held):
                size = int.from_bytes(self._held[at : at + 3], "big")
                if len(self._held) < at + 9 + size:
                    break
                kind, flags = self._held[at + 3], self._held[at + 4]
                stream = int.from_bytes(self._held[at + 5 : at + 9], "big")
                yield kind, flags, stream, self._held[at + 9 : at + 9 + size]
                at += 9 + size
                found += 1
            self._held = self._held[at:]


def stream(target: Target) -> None:
    """Messages in one stream, a few under way."""
    tls = dial(target, context(target.material(NEIGHBOUR)))
    message = frame(DATA, 0, 1, MESSAGE)
    tls.sendall(ask(1, target.echo) + message * UNDER_WAY)
    reader, came, taken, answered = Reader(tls), 0, 0, 0
    while True:
        size = sum(len(load) for kind, _, _, load in reader.frames() if kind == DATA)
        came, taken = came + size, taken + size
        more = message * (came // MESSAGE_BYTES - answered)
        answered = came // MESSAGE_BYTES
        if taken >= REFILL_BYTES:
            more, taken = more + window(0, taken) + window(1, taken), 0
        if more:
            tls.sendall(more)
        target.done.value = answered


def requests(target: Target) -> None:
    """A stream for each message in one tunnel, a few under way."""
    tls = dial(target, context(target.material(NEIGHBOUR)))

    def request(number: int) -> bytes:
        return ask(number, target.echo) + frame(DATA, END_STREAM, number, MESSAGE)

    numbers = itertools.count(1, 2)
    tls.sendall(b"".join(request(next(numbers)) for _ in range(UNDER_WAY)))
    reader, taken = Reader(tls), 0
    while True:
        more = b""
        for kind, flags, _, load in reader.frames():
            assert kind != RST, "a request was reset"
            if kind == DATA:
                taken += len(load)
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                target.did()
                more += request(next(numbers))
        if taken >= REFILL_BYTES:
            more, taken = more + window(0, taken), 0
        if more:
            tls.sendall(more)


def tunnels(target: Target) -> None:
    """A tunnel for each message."""
    shown = context(target.material(NEIGHBOUR))
    first = ask(1, target.echo) + frame(DATA, END_STREAM, 1, MESSAGE)
    while True:
        with dial(target, shown) as tls:
            tls.sendall(first)
            reader, over = Reader(tls), False
            while not over:
                for kind, flags, number, _ in reader.frames():
                    over = over or (number == 1 and kind == DATA and bool(flags & END_STREAM))
        target.did()


def _connections(target: Target, address: tuple[str, int]) -> None:
    while True:
        with socket.create_connection(address, WAIT_S) as sock:
            sock.sendall(MESSAGE)
            sock.shutdown(socket.SHUT_WR)
            came = 0
            while more := sock.recv(1 << 12):
                came += len(more)
            assert came == MESSAGE_BYTES, "an answer was cut"
        target.did()


def plaintext(target: Target) -> None:
    """A connection without an identity for each message."""
    _connections(target, target.passing)


def outbound(target: Target) -> None:
    """A connection of the pod's own app to a pod elsewhere for each message."""
    _connections(target, target.remote)


def remote(target: Target, listener: socket.socket) -> None:
    """A pod elsewhere: a server that sends back what comes, one tunnel a thread."""
    shown = context(target.material(REMOTE), server=True)
    while True:
        sock = listener.accept()[0]
        threading.Thread(target=_send_back, args=(sock, shown), daemon=True).start()


def _send_back(sock: socket.socket, shown: ssl.SSLContext) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError), shown.wrap_socket(sock, server_side=True) as tls:
        tls.sendall(frame(SETTINGS, 0, 0, setting(3, 1000)))
        missing = len(PREFACE)
        while missing:
            missing -= len(tls.recv(missing))
        reader, taken = Reader(tls), 0
        while True:
            more = b""
            for kind, flags, number, load in reader.frames():
                if kind == SETTINGS and not flags & ACK:
                    more += frame(SETTINGS, ACK)
                elif kind == PING and not flags & ACK:
                    more += frame(PING, ACK, 0, load)
                elif kind == HEADERS:
                    more += frame(HEADERS, END_HEADERS, number, b"\x88")
                elif kind == DATA:
                    taken += len(load)
                    more += frame(DATA, flags & END_STREAM, number, load)
            if taken >= REFILL_BYTES:
                more, taken = more + window(0, taken), 0
            if more:
                tls.sendall(more)


NEIGHBOURS: dict[str, Callable[[Target], None]] = {
    each.__name__: each for each in (stream, requests, tunnels, plaintext, outbound)
}
