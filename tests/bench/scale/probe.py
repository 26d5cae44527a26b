"""A health probe as a process of its own: asks fifty times a second, and prints each answer's time
in milliseconds when it is told to stop. It asks from ten addresses in turn: a page makes one that
asks too often wait."""

from __future__ import annotations

import http.client
import signal
import sys
import time
from itertools import cycle

EVERY_S = 0.02
TIMEOUT_S = 60.0
ADDRESSES = 10


def main(port: int) -> None:
    took_ms: list[float] = []
    is_over = False

    def stop(*_: object) -> None:
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, stop)
    connections = [
        http.client.HTTPConnection("127.0.0.1", port, TIMEOUT_S, (f"127.0.0.{number}", 0))
        for number in range(2, 2 + ADDRESSES)
    ]
    for connection in cycle(connections):
        if is_over:
            break
        started_s = time.monotonic()
        try:
            connection.request("GET", "/healthz/live")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
        took_ms.append((time.monotonic() - started_s) * 1000)
        time.sleep(EVERY_S)
    sys.stdout.write("\n".join(f"{each:.1f}" for each in took_ms) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
