"""The honest ones of the battery: the apps of a pod, and the neighbour whose rate is measured."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading

from tests.support.peers.hostile import DATA, WINDOW, Target, ask, context, dial, frame

NEIGHBOUR = "spiffe://cluster.local/ns/demo/sa/neighbour"
MESSAGE_BYTES = 64
MESSAGE = frame(DATA, 0, 1, bytes(MESSAGE_BYTES))
UNDER_WAY = 8
REFILL_BYTES = 32_000  # for which the windows are opened again at once


def echo(listener: socket.socket) -> None:
    """Answer each client with its own bytes, and never wait for one."""
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            with contextlib.suppress(OSError):
                if key.fileobj is listener:
                    made = listener.accept()[0]
                    made.setblocking(False)
                    ready.register(made, selectors.EVENT_READ)
                    continue
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                try:
                    data = sock.recv(1 << 16)
                    if data:
                        sock.send(data)
                        continue
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                ready.unregister(sock)
                sock.close()


def endless(listener: socket.socket) -> None:
    """Send to each client for ever."""

    def run(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            while True:
                sock.sendall(bytes(1 << 16))

    while True:
        threading.Thread(target=run, args=(listener.accept()[0],), daemon=True).start()


def neighbour(target: Target) -> None:
    """Keep a few messages under way, as a node does for its pods; `done` counts the answers."""
    tls = dial(target, context(target.material(NEIGHBOUR)))
    tls.sendall(ask(1, target.echo) + MESSAGE * UNDER_WAY)
    reader, taken = Reader(tls), 0
    while True:
        count = reader.take()
        more, taken = MESSAGE * (reader.whole(count)), taken + count
        if taken >= REFILL_BYTES:
            size = taken.to_bytes(4, "big")
            more, taken = more + frame(WINDOW, 0, 0, size) + frame(WINDOW, 0, 1, size), 0
        tls.sendall(more)
        target.done.value = reader.messages


class Reader:
    """Bytes of DATA that come."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self._held = b""
        self._bytes = 0
        self.messages = 0

    def take(self) -> int:
        """Wait for more of them."""
        count = 0
        while not count:
            more = self._tls.recv(1 << 16)
            if not more:
                raise ConnectionResetError("the neighbour's tunnel was ended")
            self._held += more
            while len(self._held) >= 9:
                size = int.from_bytes(self._held[:3], "big")
                if len(self._held) < 9 + size:
                    break
                if self._held[3] == DATA:
                    count += size
                self._held = self._held[9 + size :]
        return count

    def whole(self, count: int) -> int:
        """Messages that are whole with so many bytes more."""
        self._bytes += count
        before, self.messages = self.messages, self._bytes // MESSAGE_BYTES
        return self.messages - before
