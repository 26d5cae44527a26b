"""Envoy's own log lines as ours. Pure: bytes in, lines out; a flood is cut.

Envoy is started with FORMAT: level, component and text, line ends escaped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

FORMAT: Final = "%l %n %v"
LINE_BYTES_MAX: Final = 8 * 1024  # a rejected resource is quoted as a whole
LINES_PER_S: Final = 50
LINES_BURST: Final = 500  # a start that goes wrong has a lot to say

_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


@dataclass(frozen=True, slots=True)
class Line:
    level: int
    component: str
    text: str


def line_of(raw: bytes) -> Line:
    """One line; one of another form, as of a crash, is an error as it stands."""
    text = raw.decode("utf-8", "replace")
    level, _, rest = text.partition(" ")
    component, space, said = rest.partition(" ")
    if not space or level not in _LEVELS:
        return Line(logging.ERROR, "", text)
    return Line(_LEVELS[level], component, said)


class LineSplitter:
    """Cuts a stream of bytes into lines, none longer than LINE_BYTES_MAX."""

    def __init__(self) -> None:
        self._rest = b""
        self._skips = False  # the rest of a line that is too long

    def feed(self, data: bytes) -> list[bytes]:
        *whole, rest = (self._rest + data).split(b"\n")
        if self._skips and whole:
            self._skips = False
            del whole[0]
        if len(rest) > LINE_BYTES_MAX:
            if not self._skips:
                whole.append(rest)
            self._skips, rest = True, b""
        self._rest = rest
        return [each[:LINE_BYTES_MAX] for each in whole if each]


class LineBudget:
    """Decides which lines are written."""

    def __init__(self, now_s: float) -> None:
        self.dropped = 0
        self._left = float(LINES_BURST)
        self._at_s = now_s

    def admits(self, now_s: float) -> bool:
        self._left = min(LINES_BURST, self._left + (now_s - self._at_s) * LINES_PER_S)
        self._at_s = now_s
        if self._left < 1.0:
            self.dropped += 1
            return False
        self._left -= 1.0
        return True
