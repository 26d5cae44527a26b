"""Claims about a cluster: each has a deadline and an outcome; a summary stands at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.e2e.kubectl import CommandFailed

PAUSE_S = 1.0
Check = Callable[[], str]  # what is wrong; empty: the claim holds


@dataclass(frozen=True, slots=True)
class Outcome:
    step: str
    claim: str
    wrong: str  # empty: it held
    took_s: float
    figure: str = ""


@dataclass(slots=True)
class Claims:
    tell: Callable[[str], None]
    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    outcomes: list[Outcome] = field(default_factory=list)
    step: str = ""

    def begin(self, step: str) -> None:
        self.step = step
        self.tell(f"== {step}")

    def within(self, deadline_s: float, claim: str, check: Check) -> bool:
        """Ask until it holds, or the deadline has passed."""
        started_s = self.monotonic_s()
        while True:
            wrong = _asked(check)
            took_s = self.monotonic_s() - started_s
            if not wrong or took_s >= deadline_s:
                return self._note(claim, wrong, took_s)
            self.sleep(min(PAUSE_S, deadline_s - took_s))

    def throughout(self, seconds: float, claim: str, check: Check) -> bool:
        """It holds each time that it is asked, for so long."""
        started_s = self.monotonic_s()
        while True:
            wrong = _asked(check)
            took_s = self.monotonic_s() - started_s
            if wrong or took_s >= seconds:
                return self._note(claim, wrong, took_s)
            self.sleep(min(PAUSE_S, seconds - took_s))

    def done(self, claim: str, act: Callable[[], object]) -> bool:
        """An act that has a deadline of its own."""
        started_s = self.monotonic_s()

        def acted() -> str:
            act()
            return ""

        return self._note(claim, _asked(acted), self.monotonic_s() - started_s)

    def figure(self, claim: str, wrong: str, figure: str) -> bool:
        """Something counted, shown in the summary as well."""
        return self._note(claim, wrong, 0.0, figure)

    def _note(self, claim: str, wrong: str, took_s: float, figure: str = "") -> bool:
        made = Outcome(self.step, claim, wrong, round(took_s, 1), figure)
        self.outcomes.append(made)
        self.tell(line(made))
        return not wrong

    @property
    def failed(self) -> int:
        return sum(bool(each.wrong) for each in self.outcomes)


def _asked(check: Check) -> str:
    try:
        return check()
    except CommandFailed as exc:
        return str(exc) or "a command failed"
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        return f"an answer that was not expected: {type(exc).__name__}: {exc}"


def line(outcome: Outcome) -> str:
    verdict = "FAILED" if outcome.wrong else "ok"
    more = "; ".join(each for each in (outcome.figure, outcome.wrong) if each)
    return f"{verdict:<6} {outcome.claim} ({outcome.took_s} s){': ' + more if more else ''}"


def summary(outcomes: list[Outcome]) -> str:
    """The failures again, then figures, then the count."""
    failed = [each for each in outcomes if each.wrong]
    lines = [f"FAILED {each.step}: {each.claim}: {each.wrong}" for each in failed]
    lines += [f"{each.claim}: {each.figure}" for each in outcomes if each.figure]
    held = len(outcomes) - len(failed)
    lines.append(f"{held} of {len(outcomes)} claims hold")
    return "\n".join(lines)
