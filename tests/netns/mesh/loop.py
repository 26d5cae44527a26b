"""Connections without a pause beside a fault, and what became of each of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.lab import process
from agent.lab.process import Process
from tests.support.lab.mesh_bed import (
    FAMILIES,
    Bed,
    Reply,
    soon,
)


@dataclass
class Loop:
    """Connects without a pause, from a thread; what happened to each connection."""

    bed: Bed
    name: str
    targets: tuple[str, ...]
    timeout_s: float
    phase: str = ""
    replies: list[tuple[str, Reply]] = field(default_factory=list)  # and in which phase
    wanted: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.wanted.is_set():
                for target in self.targets:
                    self.once(target)
        except BaseException as exc:
            self.error = exc

    def once(self, target: str) -> None:
        phase = self.phase
        try:
            reply = self.bed.ask(self.name, target, timeout_s=self.timeout_s)
        except TimeoutError:
            if not phase:
                raise
            reply = Reply.UNREACHED  # the pod vanished under it
        self.replies.append((phase if phase == self.phase else "between", reply))

    def more(self, count: int = 20) -> None:
        """So many further connections were made."""
        start = len(self.replies)
        soon(lambda: len(self.replies) >= start + count or self.error is not None, "connections")
        assert self.error is None


@contextmanager
def loop(
    bed: Bed, name: str, targets: tuple[str, ...], timeout_s: float = 8.0, phase: str = ""
) -> Iterator[Loop]:
    made = Loop(bed, name, targets, timeout_s, phase)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        made.more()
        yield made
    finally:
        made.wanted.set()
        thread.join(30)
    assert made.error is None


def both(bed: Bed, name: str) -> tuple[str, ...]:
    return tuple(bed.address(name, family) for family in FAMILIES)


def kill(pid: int) -> None:
    start = process.start_of(pid)
    assert start is not None
    victim = Process(pid, start)
    assert process.send(victim, signal.SIGKILL)
    assert process.wait_gone([victim], 5) == []
