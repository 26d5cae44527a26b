"""Opens many connections to an echo server, says `ready`, and holds them until its input ends.

    hold.py HOST PORT COUNT

Each connection has carried a byte there and back, so it exists on the whole way. Standard library
only.
"""

from __future__ import annotations

import socket
import sys

TIMEOUT_S = 20.0


def main() -> None:
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    held = []
    for _ in range(count):
        sock = socket.create_connection((host, port), timeout=TIMEOUT_S)
        sock.sendall(b"x")
        if sock.recv(1) != b"x":
            raise SystemExit("the connection ended")
        held.append(sock)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
