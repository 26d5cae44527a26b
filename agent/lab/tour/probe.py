"""Timer of fresh connections: `probe.py HOST PORT COUNT`, run inside a pod, standard library only.

Each round opens a connection, sends one HTTP request and reads the first bytes of the answer.
Prints JSON: the sorted times in microseconds.
"""

import json
import socket
import sys
import time

TIMEOUT_S = 5.0


def main() -> None:
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    times_us = []
    for number in range(1, count + 1):
        started = time.perf_counter()
        try:
            with socket.socket(where[0], socket.SOCK_STREAM) as sock:
                sock.settimeout(TIMEOUT_S)
                sock.connect(where[4])
                sock.sendall(request)
                answer = sock.recv(4096)
                times_us.append((time.perf_counter() - started) * 1e6)
        except OSError as exc:
            raise SystemExit(f"connection {number}: {exc}") from exc
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"connection {number}: unexpected answer: {answer[:60]!r}")
    print(json.dumps(sorted(times_us)))


main()
