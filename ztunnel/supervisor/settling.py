"""Decides when what has arrived is settled: a state that the control plane has had. No I/O.

Our control plane says so in its responses. Another one does not, and sends the policies of a change
and its workloads in any order, perhaps seconds apart; then time decides. While the stream is away
nothing is settled: the other half of an update waits at the control plane.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from control.wire.delta import Word
from ztunnel.mesh.entries import Op

# Parts of one update may be so far apart, where the control plane does not say what belongs
# together. Until then, and at most twice as long while there is always something new, a connection
# has to be allowed by the state before as well.
APART_S: Final = 5.0
# On a new stream both types have to be heard first. One that says nothing for as long has no news.
SILENT_S: Final = 30.0


class Settling:
    """`Op.SNAPSHOT`: all that was applied is settled. `Op.LATER`: the older part of it is."""

    def __init__(self, types: Collection[str], *, apart_s: float = APART_S) -> None:
        self._apart_s = apart_s
        self._types = frozenset(types)
        self._waiting = set(self._types)  # types without a response on this stream
        self._opened_s = 0.0
        self._unsettled = False
        self._has_words = False  # the control plane is one that says when
        self._numbered = 0  # responses of this stream, in order
        self._applied = 0
        self._last = 0, Word.NONE  # number and word of the last one applied
        self._older_s: float | None = None  # last change of the part that goes first
        self._newer_s: tuple[float, float] | None = None  # first and last change of the other part

    def opened(self, now_s: float) -> None:
        """A new stream: the server says everything again that the client may not have."""
        self._waiting = set(self._types)
        self._opened_s = now_s
        self._numbered = self._applied = 0
        self._last = 0, Word.NONE

    def number(self) -> int:
        """Number for a response that has just been read. They may be applied in another order."""
        self._numbered += 1
        return self._numbered

    def applied(
        self, number: int, type_url: str, word: Word, now_s: float, *, settled: bool
    ) -> Op | None:
        """Say that a response was applied as a whole. `settled`: the state is, nothing is to do."""
        self._applied += 1
        self._waiting.discard(type_url)
        self._unsettled = not settled
        self._has_words = self._has_words or word is not Word.NONE
        self._last = max(self._last, (number, word), key=lambda each: each[0])
        if settled:
            self._forget()
            return None
        if self._waiting or self._applied < self._last[0]:
            return None
        if self._last[1] is Word.WHOLE:
            self._forget()
            return Op.SNAPSHOT
        if self._last[1] is Word.NONE:
            self._newer_s = (self._newer_s or (now_s, now_s))[0], now_s
        return None

    def due_s(self) -> float | None:
        """Time for `elapsed()`; None: there is nothing to wait for."""
        if self._waiting:
            waits = self._unsettled and not self._has_words
            return self._opened_s + SILENT_S if waits else None
        if self._older_s is not None:
            return self._older_s + self._apart_s
        return None if self._newer_s is None else self._newer_s[0] + self._apart_s

    def elapsed(self, now_s: float) -> Op | None:
        due_s = self.due_s()
        if due_s is None or now_s < due_s:
            return None
        if self._waiting:
            self._waiting.clear()
            self._newer_s = (self._newer_s or (now_s, now_s))[0], now_s
            return None
        if self._newer_s is None or now_s >= self._newer_s[1] + self._apart_s:
            self._forget()
            return Op.SNAPSHOT
        self._older_s, self._newer_s = self._newer_s[1], None
        return Op.LATER

    def _forget(self) -> None:
        self._unsettled = False
        self._older_s = self._newer_s = None
