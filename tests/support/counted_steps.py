"""Work of steps, counted and not timed: lines of Python that a step runs, and blocks of memory that
it frees. Passes inside C are not seen: tests/bench/scale/slices.py times them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Most:
    """The largest step so far, with its place."""

    lines: tuple[int, str] = (0, "")
    freed: tuple[int, str] = (0, "")


class Counter:
    """Counts lines and calls while it is on; a resumed generator is a call."""

    def __init__(self) -> None:
        self.lines = 0

    def trace(self, frame: FrameType, event: str, _: object) -> object:
        self.lines += 1
        return self.trace


def place_of(steps: object) -> str:
    """The function in which a generator stands, down to the last."""
    name = "end"
    while getattr(steps, "gi_frame", None) is not None:
        name = steps.gi_code.co_qualname  # type: ignore[attr-defined]  # a generator
        steps = steps.gi_yieldfrom  # type: ignore[attr-defined]
    return name


def measured(steps: Iterator[None]) -> Most:
    counter, most = Counter(), Most()
    gc.collect()
    gc.disable()
    before = sys.gettrace()
    try:
        is_over = False
        while not is_over:
            began, counter.lines = place_of(steps), 0
            blocks = sys.getallocatedblocks()
            sys.settrace(counter.trace)  # type: ignore[arg-type]
            is_over = next(steps, most) is most
            sys.settrace(before)
            freed = blocks - sys.getallocatedblocks()
            place = f"{began} to {place_of(steps)}"
            most.lines = max(most.lines, (counter.lines, place))
            most.freed = max(most.freed, (freed, place))
    finally:
        sys.settrace(before)
        gc.enable()
    return most
