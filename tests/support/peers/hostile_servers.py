"""Attacks on the client side: a server that a pod of ours dials, and the pod that dials. One
process plays both, as a tenant with a pod on this node and one elsewhere would."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable

from control.model.workload import HBONE_PORT
from tests.support.peers.hostile import (
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    SETTINGS,
    Target,
    context,
    frame,
    setting,
    source_address,
    window,
)
from tests.support.peers.hostile_clients import one_byte_data

Behaviour = Callable[[ssl.SSLSocket], None]
STATUS_200 = b"\x88"
HELD_MAX = 300
PIECE = 200


def _serve(target: Target, behave: Behaviour) -> None:
    shown = context(target.material(), server=True)
    listener = socket.create_server((target.evil_address, HBONE_PORT), backlog=1024)

    def run(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.settimeout(10)
            with shown.wrap_socket(sock, server_side=True) as tls:
                behave(tls)
        sock.close()

    while True:
        threading.Thread(target=run, args=(listener.accept()[0],), daemon=True).start()


def _dial(target: Target, address: str, first: bytes, held_max: int) -> None:
    """As the hostile pod's app, as fast as it is let."""
    held: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            sock = socket.create_connection((address, target.outbound), timeout=2)
            sock.setblocking(False)
            held.append(sock)
            if first:
                sock.send(first)
        target.did()
        while len(held) > held_max:
            held.pop(0).close()


def _server(
    behave: Behaviour, first: bytes = b"", held_max: int = HELD_MAX
) -> Callable[[Target], None]:
    def attack(target: Target) -> None:
        threading.Thread(target=_serve, args=(target, behave), daemon=True).start()
        _dial(target, target.evil_address, first, held_max)

    return attack


def _read_for_ever(tls: ssl.SSLSocket) -> None:
    while tls.recv(1 << 16):
        pass


def _say_nothing(tls: ssl.SSLSocket) -> None:
    tls.sendall(frame(SETTINGS))
    _read_for_ever(tls)


def _flood(piece: bytes) -> Behaviour:
    def behave(tls: ssl.SSLSocket) -> None:
        tls.sendall(frame(SETTINGS))
        tls.recv(1 << 16)
        while True:
            tls.sendall(piece * PIECE)

    return behave


def _drip_pings(tls: ssl.SSLSocket) -> None:
    """PINGs as TLS records of one byte each."""
    tls.sendall(frame(SETTINGS))
    ping = frame(PING, 0, 0, bytes(8))
    while True:
        for at in range(len(ping)):
            tls.send(ping[at : at + 1])


def _go_away(tls: ssl.SSLSocket) -> None:
    """Let a request come, and say that none was looked at."""
    tls.sendall(frame(SETTINGS))
    tls.recv(1 << 16)
    tls.sendall(frame(GOAWAY, 0, 0, bytes(8)))
    _read_for_ever(tls)


def _close(tls: ssl.SSLSocket) -> None:
    tls.close()


def _accept_and_stop_reading(tls: ssl.SSLSocket) -> None:
    """A 200 for each of the first streams; then nothing is read."""
    tls.sendall(frame(SETTINGS, 0, 0, setting(4, (1 << 31) - 1)) + window(0, 1 << 30))
    tls.recv(1 << 16)
    for stream in range(1, 200, 2):
        tls.sendall(frame(HEADERS, END_HEADERS, stream, STATUS_200))
        tls.recv(1 << 10)
    time.sleep(60)


never_answers = _server(_say_nothing)
floods_pings = _server(_flood(frame(PING, 0, 0, bytes(8))))
drips_pings = _server(_drip_pings)
floods_data = _server(_flood(frame(DATA, 0, 1, bytes(1 << 10))))
floods_settings = _server(_flood(frame(SETTINGS)))
goes_away = _server(_go_away)
closes = _server(_close, held_max=10)
stops_reading = _server(_accept_and_stop_reading, first=bytes(1 << 16))


def nobody_there(target: Target) -> None:
    _dial(target, target.nobody, b"", 10)


def hoard(target: Target) -> None:
    """Connections of a pod that are held for ever, to a server that never answers."""
    threading.Thread(target=_serve, args=(target, _say_nothing), daemon=True).start()
    _dial(target, target.evil_address, b"", 1 << 20)


def strangers(target: Target) -> None:
    """Dials to addresses that the mesh knows nothing of, past it, where nobody listens."""
    _dial(target, source_address(), b"", 10)


def both_ways(target: Target) -> None:
    """As a client and as a server at once."""
    threading.Thread(target=one_byte_data, args=(target,), daemon=True).start()
    floods_data(target)
