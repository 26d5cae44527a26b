"""Traffic for the length of a pod: short requests with hardly a pause, and open connections.

Counts are in a file as JSON, which the run reads before and after what it does to the mesh.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

COUNTS = Path("/tmp/counts.json")
PAUSE_S, WRITE_S = 0.02, 0.2
TIMEOUT_S = 10.0
OPEN = 8


class Calls:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values = {"answered": 0, "failed": 0, "echoed": 0, "broken": 0}
        self._last = ""

    def add(self, name: str, error: object = "") -> None:
        with self._lock:
            self._values[name] += 1
            if error:
                self._last = f"{type(error).__name__}: {error}"

    def write(self, path: Path) -> None:
        with self._lock:
            text = json.dumps({**self._values, "last": self._last})
        temporary = path.with_suffix(".new")
        temporary.write_text(text)
        os.replace(temporary, path)


def request(host: str, port: int) -> None:
    with socket.create_connection((host, port), TIMEOUT_S) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        data = b""
        while piece := sock.recv(4096):
            data += piece
    if not data.startswith(b"HTTP/1.0 200"):
        raise ConnectionError(f"answer of {len(data)} bytes")


def ask_always(host: str, port: int, counts: Calls) -> None:
    while True:
        try:
            request(host, port)
            counts.add("answered")
        except OSError as exc:
            counts.add("failed", exc)
        time.sleep(PAUSE_S)


def hold_always(host: str, port: int, counts: Calls) -> None:
    while True:
        try:
            with socket.create_connection((host, port), TIMEOUT_S) as sock:
                hold(sock, counts)
        except OSError as exc:
            counts.add("broken", exc)
            time.sleep(PAUSE_S)


def hold(sock: socket.socket, counts: Calls) -> None:
    """Lines there and back until the connection breaks."""
    while True:
        sock.sendall(b"ping\n")
        data = b""
        while not data.endswith(b"\n"):
            piece = sock.recv(4096)
            if not piece:
                raise ConnectionError("closed")
            data += piece
        counts.add("echoed")
        time.sleep(PAUSE_S * 5)


def run(host: str, http: int, echo: int, path: Path) -> None:
    counts = Calls()
    threads = [threading.Thread(target=ask_always, args=(host, http, counts), daemon=True)]
    threads += [
        threading.Thread(target=hold_always, args=(host, echo, counts), daemon=True)
        for _ in range(OPEN)
    ]
    for thread in threads:
        thread.start()
    while True:
        counts.write(path)
        time.sleep(WRITE_S)


if __name__ == "__main__":
    service, http, echo = sys.argv[1:4]
    run(os.environ[f"{service.upper()}_SERVICE_HOST"], int(http), int(echo), COUNTS)
