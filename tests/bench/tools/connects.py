"""Duration of connect(): prints one number of microseconds a line, one per block of connects.

    connects.py HOST PORT --seconds S             to a server that is there
    connects.py --local --cgroups A B --seconds S to a listener of its own, in turn as a process of
                                                  cgroup A and of cgroup B: "A_US B_US" a line

A block's number is the median of its connects. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import sys
import time
from pathlib import Path

BLOCK = 200  # connects between two changes of cgroup: some 10 ms, shorter than most disturbances
PAUSE_S = (
    0.0005  # towards a real server: at most 2,000/s, so that ports in TIME_WAIT do not run out
)
_RESET = struct.pack("ii", 1, 0)


def one(address: tuple[str, int], listener: socket.socket | None) -> float:
    sock = socket.socket()
    accepted = None
    try:
        before = time.perf_counter_ns()
        sock.connect(address)
        took = time.perf_counter_ns() - before
        if listener is not None:
            accepted, _ = listener.accept()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # leaves no TIME_WAIT
    finally:
        sock.close()
        if accepted is not None:
            accepted.close()
    return took / 1000


def block(address: tuple[str, int], listener: socket.socket | None, count: int) -> float:
    return statistics.median(one(address, listener) for _ in range(count))


def between_cgroups(groups: list[Path], end_s: float) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        address = listener.getsockname()
        turn = 0
        while time.monotonic() < end_s:
            # The two take turns in going first, so that neither always meets the warmer caches.
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            took = [0.0, 0.0]
            for index in order:
                (groups[index] / "cgroup.procs").write_text(str(os.getpid()))
                took[index] = block(address, listener, BLOCK)
            turn += 1
            sys.stdout.write(f"{took[0]:.3f} {took[1]:.3f}\n")


def to_server(address: tuple[str, int], end_s: float) -> None:
    while time.monotonic() < end_s:
        took = []
        for _ in range(20):
            took.append(one(address, None))
            time.sleep(PAUSE_S)
        sys.stdout.write(f"{statistics.median(took):.3f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="")
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--cgroups", nargs=2, type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    end_s = time.monotonic() + options.seconds
    if options.local:
        between_cgroups(options.cgroups, end_s)
    else:
        to_server((options.host, options.port), end_s)


if __name__ == "__main__":
    main()
