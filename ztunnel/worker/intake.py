"""The supervisor's frames, acted upon in order and a little at a time; decides nothing.

A push of 10,000 workloads is a tenth of a second of work. Connections must not wait for it, so each
turn of the loop takes a share: a few entries of `RESOURCES` at a time, any other frame as a whole.
A frame never overtakes one before it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from ztunnel.ipc import Frame, FrameKind
from ztunnel.mesh.entries import Entry, decode_entries

# Share of a turn, except for the one step that crosses the line.
TURN_S: Final = 0.0005
# They take about 0.1 ms.
ENTRIES_PER_STEP: Final = 8


class Intake:
    """A queue of frames. Its owner adds none while it is `busy`: the rest stays in the pipe, and
    in the end with the supervisor."""

    def __init__(
        self,
        act: Callable[[Frame], None],
        apply: Callable[[Sequence[Entry]], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._act = act
        self._apply = apply
        self._monotonic_s = monotonic_s
        self._frames: deque[Frame] = deque()
        self._entries: deque[Entry] = deque()

    @property
    def busy(self) -> bool:
        """True while there is work for another turn."""
        return bool(self._entries or self._frames)

    def add(self, frames: Iterable[Frame]) -> None:
        self._frames.extend(frames)

    def work(self) -> None:
        """Do one turn's share. Raises the errors of `act`, and WireError for a broken frame."""
        due_s = self._monotonic_s() + TURN_S
        while self.busy:
            self._step()
            if self._monotonic_s() >= due_s:
                return

    def _step(self) -> None:
        if self._entries:
            batch = list(islice(self._entries, ENTRIES_PER_STEP))
            for _ in batch:
                self._entries.popleft()
            self._apply(batch)
            return
        frame = self._frames.popleft()
        if frame.kind is FrameKind.RESOURCES:
            self._entries.extend(decode_entries(frame.payload))
        else:
            self._act(frame)
