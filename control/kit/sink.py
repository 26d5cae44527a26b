"""Writes log lines to a descriptor and never waits for its reader; logs nothing itself.

A reader that stops must not stop the writer. Lines wait in memory up to a bound, then new ones are
dropped and counted. The descriptor keeps its flags: other processes share it, and making it
non-blocking would surprise them.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

# Some 1,000 access lines: a second of a slow reader at full rate.
WAITING_BYTES_MAX: Final = 256 * 1024
# A pipe takes up to this much at once or not at all, so lines of several processes never mix.
CHUNK_BYTES_MAX: Final = select.PIPE_BUF

Put = Callable[[bytes], int]


def never_waiting(descriptor: int) -> Put:
    """A write that raises BlockingIOError instead of waiting."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):  # journald's
        sock = socket.socket(fileno=os.dup(descriptor))
        return lambda data: sock.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISREG(mode):  # never waits; another file description would have its own position
        return partial(os.write, descriptor)
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        return partial(os.write, os.open(f"/proc/self/fd/{descriptor}", flags))
    except OSError:
        return partial(_write_when_ready, descriptor)


def _write_when_ready(descriptor: int, data: bytes) -> int:
    """Write to a descriptor that cannot be opened anew. A ready pipe has room for a chunk,
    unless another process takes that room in between: then this waits."""
    if not select.select((), (descriptor,), (), 0)[1]:
        raise BlockingIOError
    return os.write(descriptor, data)


class LineSink:
    def __init__(self, put: Put, waiting_bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._put = put
        self._waiting_bytes_max = waiting_bytes_max
        self._lines: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.dropped = 0  # lines that nobody will see

    def write(self, line: str) -> None:
        """Queue a line for `flush`. Whole lines only."""
        self._keep(line.encode(errors="backslashreplace"), 1)

    def write_all(self, lines: list[str]) -> None:
        """Queue several lines, as one piece if that is small enough."""
        data = "".join(lines).encode(errors="backslashreplace")
        if len(data) <= CHUNK_BYTES_MAX:
            self._keep(data, len(lines))
        else:
            for line in lines:
                self.write(line)

    def _keep(self, data: bytes, lines: int) -> None:
        if self.waiting_bytes + len(data) > self._waiting_bytes_max:
            self.dropped += lines
            return
        self._lines.append(data)
        self.waiting_bytes += len(data)

    def flush(self) -> None:
        """Write as much as the descriptor takes now."""
        while self._lines:
            chunk = self._next_chunk()
            try:
                written = self._put(chunk)
            except BlockingIOError:
                written = 0
            except OSError:  # no reader is left, or the disk is full
                self.dropped += chunk.count(b"\n")
                self.waiting_bytes -= len(chunk)
                continue
            self.waiting_bytes -= written
            if written < len(chunk):
                self._lines.appendleft(chunk[written:])
                return

    def _next_chunk(self) -> bytes:
        lines = self._lines
        chunk = lines.popleft()
        while lines and len(chunk) + len(lines[0]) <= CHUNK_BYTES_MAX:
            chunk += lines.popleft()
        return chunk
