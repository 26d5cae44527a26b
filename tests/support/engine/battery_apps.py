"""The apps of the battery's pod."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


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
