"""A chaos run: faults at random moments, and a judge that looks at the wire and at each caller."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.callers import HANG_S, Caller, Route
from tests.chaos.faults import NARROW, Fault, small_disk, table
from tests.support.kernel.netns import eventually
from tests.support.lab.mesh_bed import PORT, Bed, Wire, mesh_bed

STRIKE_S = (0.2, 2.5)  # a fault's duration: its time-outs and retries stay under HANG_S
TOGETHER = 0.4  # chance of a second fault beside the first
WATCH_S = 0.2
ROUTES = (
    Route("client", "server", allowed=True),
    Route("client", "server", allowed=True, lines=200),
    Route("client", "near", allowed=True, lines=3),
    Route("near", "server", allowed=True, lines=20),
    Route("server", "near", allowed=True, lines=20),
    Route("other", "server", allowed=False),
    Route("stranger", "server", allowed=False),
    Route("stranger", "near", allowed=False),
)
Say = Callable[[str], None]


@dataclass
class Findings:
    """Outcome of a run: `wrong` breaks a promise, the rest says how much was tried."""

    wrong: list[str] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    recovery_s: list[float] = field(default_factory=list)


def chaos(
    folder: Path,
    seed: str,
    seconds: float,
    say: Say = lambda _: None,
) -> Findings:
    """Build a mesh in `folder`, disturb it, and take it down again."""
    with disturbable(folder) as bed:
        return disturb(bed, table(bed, folder), seed, seconds, say)


@contextmanager
def disturbable(folder: Path) -> Iterator[Bed]:
    """A mesh whose policies say who may reach whom, on a small disk."""
    with small_disk(folder), mesh_bed(folder) as bed:
        bed.write_policy(NARROW)
        wait_for_policy(bed)
        yield bed


def wait_for_policy(bed: Bed) -> None:
    eventually(lambda: bed.no(("other", "server", PORT), ("stranger", "near", PORT)), "policy")


def disturb(
    bed: Bed, faults: list[Fault], seed: str, seconds: float, say: Say = lambda _: None
) -> Findings:
    """Let the faults strike for so long. It ends early when a promise is broken."""
    found = Findings()
    with ExitStack() as stack:
        wires = [stack.enter_context(bed.wire(node)) for node in (bed.here, bed.there)]
        stack.enter_context(watched(wires, found))
        callers = stack.enter_context(calling(bed, seed, found))
        recover(callers, found)
        strike(faults, seed, seconds, callers, found, say)
    return found


def strike(
    faults: list[Fault],
    seed: str,
    seconds: float,
    callers: list[Caller],
    found: Findings,
    say: Say,
) -> None:
    """Every fault in turn, in a random order, again and again until the time is over."""
    dice, end = random.Random(seed), time.monotonic() + seconds
    waiting: list[Fault] = []
    while time.monotonic() < end and not (found.wrong or any(c.tally.wrong for c in callers)):
        waiting = waiting or dice.sample(faults, len(faults))
        episode = pick(waiting, dice)
        say(" + ".join(fault.name for fault in episode))
        with ExitStack() as stack:
            for fault in episode:
                stack.enter_context(fault.strike())
                found.struck[fault.name] += 1
                threading.Event().wait(dice.uniform(*STRIKE_S))  # its duration is the test
        recover(callers, found)


def pick(waiting: list[Fault], dice: random.Random) -> list[Fault]:
    """Take one fault off the list, or two that can strike together."""
    first = waiting.pop()
    if not first.alone and dice.random() < TOGETHER:
        for second in waiting:
            if not second.alone and second.subject != first.subject:
                waiting.remove(second)
                return [first, second]
    return [first]


def recover(callers: list[Caller], found: Findings) -> None:
    """Everyone who is allowed is answered again, within the time that no call may take."""
    began = time.monotonic()
    before = {each: each.tally.answered for each in callers if each.route.allowed}
    try:
        eventually(
            lambda: all(each.tally.answered > count for each, count in before.items()),
            "answers",
            HANG_S,
        )
    except BaseException:
        late = [str(each.route) for each, count in before.items() if each.tally.answered <= count]
        found.wrong.append(f"no answer {HANG_S} s after the faults: {', '.join(late)}")
    found.recovery_s.append(time.monotonic() - began)


@contextmanager
def calling(bed: Bed, seed: str, found: Findings) -> Iterator[list[Caller]]:
    callers = [Caller(bed, route, seed) for route in ROUTES]
    for each in callers:
        each.start()
    try:
        yield callers
    finally:
        for each in callers:
            each.stop()
        for each in callers:
            each.join()
            found.wrong += each.tally.wrong
            found.answered[str(each.route)] += each.tally.answered
            found.failed[str(each.route)] += each.tally.failed
            if each.route.allowed:
                found.longest_s = max(found.longest_s, each.tally.longest_s)


@contextmanager
def watched(wires: list[Wire], found: Findings) -> Iterator[None]:
    """Count what is plain on the wires, all the time: their buffers hold seconds, not minutes."""
    over = threading.Event()

    def look() -> None:
        try:
            while not over.wait(WATCH_S):
                for wire in wires:
                    wire.counts()
                    wire.frames.clear()
        except BaseException as exc:
            found.wrong.append(f"the wire was not watched: {exc!r}")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for wire in wires:
            plain = wire.counts().marker_packets
            if plain:
                found.wrong.append(f"{plain} packets in the clear")
            if not wire.seen.hbone_payload_packets:
                found.wrong.append("nothing was seen on the wire")
