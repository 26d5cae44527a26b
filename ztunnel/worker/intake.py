"""What the supervisor says, acted upon in order and a little at a time; decides nothing.

A push of 10,000 workloads is a tenth of a second of work. Connections must not wait for it, so each
turn of the loop takes a share: entries of `RESOURCES` a few at once, every other frame as one. What
came later waits, whatever it is: a frame never overtakes one before it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from ztunnel.ipc import Frame, FrameKind
from ztunnel.mesh.entries import Entry, decode_entries

# What connections wait at most in a turn, but for the one step that crosses the line.
TURN_S: Final = 0.0005
# About 0.1 ms.
ENTRIES_PER_STEP: Final = 8


class Intake:
    """The owner adds no more frames while it is `busy`: the pipe holds the rest, and in the end the
    supervisor."""

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
        """Something waits for the next turn."""
        return bool(self._entries or self._frames)

    def add(self, frames: Iterable[Frame]) -> None:
        self._frames.extend(frames)

    def work(self) -> None:
        """One turn's share. Raises what `act` raises, and WireError for a broken frame."""
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
