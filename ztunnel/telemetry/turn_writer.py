"""A stream of log lines that writes those of one turn together, at its end; formats nothing."""

from __future__ import annotations

import time
from typing import Final

from control.kit.sink import LineSink
from ztunnel.loop.reactor import Reactor

# Until the next try while nobody reads the lines.
RETRY_S: Final = 0.1
# Tries at the end of the process; a second altogether.
FINISH_EVERY_S: Final = 0.01
FINISH_TRIES_MAX: Final = 100


class TurnWriter:
    """The stream of a worker. `put` is for the access log, `write` and `flush` are for `logging`,
    whose lines keep their place among the others."""

    def __init__(self, reactor: Reactor, sink: LineSink) -> None:
        self._reactor = reactor
        self._sink = sink
        self._lines: list[str] = []  # at most one for each connection served in this turn
        self._retry = reactor.countdown(RETRY_S, TurnWriter.flush)

    def put(self, line: str) -> None:
        """Write the line at the end of this turn."""
        if not self._lines:
            self._reactor.flush_last(self)
        self._lines.append(line)

    def write(self, line: str) -> None:
        """Write the line at the `flush` that follows."""
        self._hand_over()
        self._sink.write(line)

    def _hand_over(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._sink.write_all(lines)

    def flush(self) -> None:
        self._hand_over()
        self._sink.flush()
        if self._sink.waiting_bytes:
            self._retry.start(self)

    def finish(self) -> None:
        """Before the process ends: give a slow reader one more second."""
        self._hand_over()
        for _ in range(FINISH_TRIES_MAX):
            self._sink.flush()
            if not self._sink.waiting_bytes:
                return
            time.sleep(FINISH_EVERY_S)

    @property
    def dropped(self) -> int:
        """Lines that nobody read in time."""
        return self._sink.dropped

    def on_bug(self) -> None:
        """The next line tries again."""
