"""The start of a worker process: its channel, its settings, its memory.

It is a copy of its supervisor, or `python -m ztunnel.worker --fd N`: N is a socketpair whose other
end is the supervisor.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import socket
import sys
from typing import Final

from control.kit.clock import SystemClock
from control.kit.errors import WireError
from control.kit.log import event, setup
from control.kit.memory import spare_collector
from ztunnel.ipc import Frame, FrameKind, IpcSocket
from ztunnel.loop.timeslice import shorten
from ztunnel.worker.settings import WorkerSettings
from ztunnel.worker.worker import Worker

log = logging.getLogger("ztunnel.worker")

# A buffer of one turn (512 KiB, twice that when OpenSSL grows one) is reused, not unmapped.
BUFFER_BYTES_KEPT_MAX: Final = 2 * 1024 * 1024
# Free memory at the end of the heap that is kept between two turns of a bulk transfer.
HEAP_BYTES_KEPT_MAX: Final = 4 * 1024 * 1024
_M_MMAP_THRESHOLD: Final = -3  # mallopt(3)
_M_TRIM_THRESHOLD: Final = -1


def keep_buffers() -> None:
    """Let malloc keep the buffers of a bulk transfer.

    By default glibc gives every freed buffer of 128 KiB or more back to the kernel, and a bulk
    sender gets four of them each turn: page faults took two thirds of its time (measured: 3.0
    Gbit/s, without them 5.2 and more).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, BUFFER_BYTES_KEPT_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, HEAP_BYTES_KEPT_MAX)


def receive_settings(channel: IpcSocket) -> tuple[WorkerSettings, list[Frame]] | None:
    """Wait for the supervisor's first frame, which is CONFIG; also what came behind it.

    None: the supervisor has gone. WireError: the first frame is another one, or makes no sense.
    """
    ready = select.poll()  # not select(): the descriptor may be above 1,024
    ready.register(channel, select.POLLIN)
    frames: list[Frame] = []
    while not frames:
        ready.poll()
        received = channel.receive()
        if received is None:
            return None
        frames += received
    first = frames.pop(0)
    if first.kind is not FrameKind.CONFIG:
        raise WireError(f"{first.kind.name} came before CONFIG")
    try:
        return WorkerSettings.parse(first.json()), frames
    except (TypeError, ValueError) as exc:
        raise WireError(f"CONFIG: {exc!r}") from exc


def start(channel: IpcSocket, log_descriptor: int) -> Worker | None:
    """Say READY and make the worker; None: the supervisor has gone, or makes no sense."""
    setup("info", "text")
    try:
        channel.send_json(FrameKind.READY, {})
        received = receive_settings(channel)
    except (WireError, OSError) as exc:
        event(log, logging.ERROR, "supervisor.lost", error=exc)
        return None
    if received is None:
        event(log, logging.WARNING, "supervisor.gone")
        return None
    settings, frames = received
    return Worker(channel, SystemClock(), log_descriptor, settings, frames)


def main(arguments: list[str]) -> int:
    # Not argparse: it costs 0.4 MiB in each worker, for one option that only the supervisor gives.
    if len(arguments) != 2 or arguments[0] != "--fd" or not arguments[1].isdecimal():
        sys.stderr.write("usage: python -m ztunnel.worker --fd N (started by the supervisor)\n")
        return 2
    return work(int(arguments[1]))


def work(descriptor: int) -> int:
    """Serve until the supervisor at the other end of this socket has gone; the exit code."""
    spare_collector()
    os.set_inheritable(descriptor, False)
    worker = start(IpcSocket(socket.socket(fileno=descriptor)), sys.stderr.fileno())
    if worker is not None:
        keep_buffers()
        shorten()
        worker.run()
    return 0
