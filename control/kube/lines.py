"""Lines of a watch, put together from chunks. Pure; a line that never ends is refused."""

from __future__ import annotations

from control.kube.errors import TooLargeAnswer

LINE_BYTES_MAX = 16 * 1024 * 1024  # etcd takes 1.5 MiB an object; JSON of it may be larger


class Lines:
    def __init__(self, bytes_max: int = LINE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []  # begun, and not ended yet
        self._waiting = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk ends, without their newline; empty ones are left out."""
        *ended, rest = chunk.split(b"\n")
        lines = []
        for each in ended:
            line = b"".join((*self._parts, each))
            self._parts, self._waiting = [], 0
            if line.strip():
                lines.append(line)
        if rest:
            self._parts.append(rest)
            self._waiting += len(rest)
        if self._waiting > self._bytes_max:
            raise TooLargeAnswer(f"a line of a watch over {self._bytes_max} bytes")
        return lines
