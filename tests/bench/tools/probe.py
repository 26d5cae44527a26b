"""Asks an echo server, and prints for each answer when it came and how long it took.

    probe.py HOST PORT --seconds S [--connections N] [--every-us U] [--bytes B] [--until-eof]

Each connection asks again `every-us` after its last question was due (0: at once after the
answer). Prints "TIME_S TOOK_US" lines at the end, times of CLOCK_MONOTONIC. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import time

SAMPLES_MAX = 3_000_000  # some 200 MB; no run here comes near
CONNECT_TIMEOUT_S = 10.0


def alone(options: argparse.Namespace) -> list[tuple[int, int]]:
    """One connection, no poller: the shortest way there and back that Python has."""
    question = bytes(options.bytes)
    found: list[tuple[int, int]] = []
    clock = time.monotonic_ns
    with dial(options) as sock:
        for _ in range(100):  # warm
            sock.send(question)
            sock.recv(options.bytes, socket.MSG_WAITALL)
        end = clock() + int(options.seconds * 1e9)
        now = clock()
        while now < end and len(found) < SAMPLES_MAX:
            before = now
            sock.send(question)
            if len(sock.recv(options.bytes, socket.MSG_WAITALL)) < options.bytes:
                raise SystemExit("the connection ended")
            now = clock()
            found.append((now, now - before))
    return found


def many(options: argparse.Namespace) -> list[tuple[int, int]]:
    """Paced questions on many connections. A late answer also delays its successor's question,
    and that delay counts: the time runs from when the question was due."""
    question, every = bytes(options.bytes), options.every_us * 1000
    socks = [dial(options) for _ in range(options.connections)]
    start = time.monotonic_ns()
    due = [start + every * index // len(socks) for index in range(len(socks))]
    waiting: dict[int, int] = {}  # fileno -> index, of those that owe us an answer
    left = [0] * len(socks)
    poll = select.epoll()
    for sock in socks:
        poll.register(sock, select.EPOLLIN)
    end = start + int(options.seconds * 1e9)
    found: list[tuple[int, int]] = []
    if options.until_eof:
        poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    while (now := time.monotonic_ns()) < end and len(found) < SAMPLES_MAX:
        for index, sock in enumerate(socks):
            if due[index] <= now and sock.fileno() not in waiting:
                sock.send(question)
                waiting[sock.fileno()], left[index] = index, options.bytes
        asleep = [due[i] for i, sock in enumerate(socks) if sock.fileno() not in waiting]
        pause_s = max(0.0, (min(asleep) - time.monotonic_ns()) / 1e9) if asleep else 0.1
        for number, _ in poll.poll(min(pause_s, 0.1)):
            if number == sys.stdin.fileno():
                return found
            index = waiting[number]
            data = socks[index].recv(options.bytes)
            if not data:
                raise SystemExit("the connection ended")
            left[index] -= len(data)
            if left[index] == 0:
                now = time.monotonic_ns()
                found.append((now, now - due[index]))
                del waiting[number]
                due[index] += every
    return found


def dial(options: argparse.Namespace) -> socket.socket:
    sock = socket.create_connection((options.host, options.port), timeout=CONNECT_TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(None)
    return sock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--every-us", type=int, default=0)
    parser.add_argument("--until-eof", action="store_true", help="end when the input does")
    parser.add_argument("--bytes", type=int, default=64)
    options = parser.parse_args()
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # the probe must see the mesh, not the queue to run
    is_single = options.connections == 1 and options.every_us == 0
    found = alone(options) if is_single else many(options)
    sys.stdout.write("".join(f"{at / 1e9:.6f} {took / 1e3:.1f}\n" for at, took in found))


if __name__ == "__main__":
    main()
