"""Output of the tour: steps, the evidence for each claim, and the summary."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from control.kit.clock import Clock

EVIDENCE_CHARS_MAX = 160


class ClaimFailed(Exception):
    """A claim that does not hold: the run has failed."""


@dataclass(slots=True)
class Report:
    clock: Clock
    colour: bool = field(
        default_factory=lambda: sys.stdout.isatty() and "NO_COLOR" not in os.environ
    )
    claims: int = 0
    figures: list[tuple[str, str]] = field(default_factory=list)
    durations: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        print(f"\n{self._paint('1', title)}", flush=True)
        started = self.clock.monotonic_s()
        yield
        self.durations.append((title, self.clock.monotonic_s() - started))

    def run(self, command: str) -> None:
        """Show a command as a user would type it."""
        print(f"  {self._paint('2', '$ ' + command)}", flush=True)

    def show(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            print(f"      {line}", flush=True)

    def claim(self, holds: bool, text: str, evidence: object = "") -> None:
        """Print the claim with its evidence; a claim that does not hold ends the tour."""
        said = " ".join(str(evidence).split())
        if len(said) > EVIDENCE_CHARS_MAX:
            said = said[:EVIDENCE_CHARS_MAX] + "…"
        mark = self._paint("32", "√") if holds else self._paint("31", "×")
        print(f"  {mark} {text}" + (f"  [{said}]" if said else ""), flush=True)
        if not holds:
            raise ClaimFailed(text)
        self.claims += 1

    def figure(self, name: str, value: str) -> None:
        self.figures.append((name, value))

    def summary(self) -> None:
        print(f"\n{self._paint('1', 'Summary')}")
        for title, seconds in self.durations:
            print(f"  {seconds:6.1f} s  {title}")
        print()
        width = max((len(name) for name, _ in self.figures), default=0)
        for name, value in self.figures:
            print(f"  {name:<{width}}  {value}")
        print(f"\n  {self.claims} claims checked, all of them hold.", flush=True)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text
