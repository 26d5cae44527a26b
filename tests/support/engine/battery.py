"""A hostile peer beside an honest neighbour of a real worker, measured: the neighbour's rate, the
worker's memory, its CPU time for each thing that the attacker did, and its own counters.

The worker has one core for itself. The apps, the neighbour and the attacker have the other one,
where the attacker runs only when the neighbour does not want to; time in which the machine had no
core for them is left out. So it is in the worker that the neighbour loses what it loses.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from control.model.workload import HBONE_PORT
from tests.support.engine.battery_apps import echo, endless
from tests.support.engine.battery_neighbours import NEIGHBOUR, NEIGHBOURS, remote
from tests.support.engine.battery_node import VICTIM_NICE, BatteryWorker
from tests.support.engine.battery_worker import MEANT_PORT
from tests.support.engine.tunnel_bed import DEADLINE_S, listener_at
from tests.support.peers.hostile import Target, source_address

WINDOW_S = 0.2
QUIET_WINDOWS, ATTACK_WINDOWS = 2, 5
RISE_S = 0.5  # bursts that the bounds allow (docs/bounds.md) are over then
ATTACKER_NICE = 19
# On a machine that is busy with other things, no more than this is made up for.
SERVED_PART_LEAST = 0.25
SLOWED = "slowed"  # turns in which the attackers had less than they could use
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Bills:
    """CPU time while the attack lasts, in seconds."""

    worker: float  # what the kernel says of the process
    attackers: float  # on the bill of any tenant but the neighbour's
    neighbour: float
    meant: float  # what the neighbour's messages take when it is quiet

    @property
    def share(self) -> float:
        """The neighbour's part of what was spent on anybody."""
        return self.neighbour / max(1e-9, self.attackers + self.neighbour)

    def __str__(self) -> str:
        return (
            f"bills {self.attackers:.2f} + {self.neighbour:.2f} s ({self.share:.2f}; quiet "
            f"{self.meant:.2f}) of {self.worker:.2f}"
        )


@dataclass(frozen=True)
class Outcome:
    quiet: float  # the neighbour's messages a second
    beside: float
    idle_mib: float
    most_mib: float
    cpu_s: float  # spent by the worker, and not on the neighbour: its messages, and waits for it
    bills: Bills
    done: int  # by the attacker
    counted: dict[str, int]  # counters of the worker that rose

    @property
    def part(self) -> float:
        return self.beside / self.quiet

    def __str__(self) -> str:
        each = 1e6 * self.cpu_s / max(1, self.done)
        return (
            f"neighbour {self.quiet:.0f} -> {self.beside:.0f}/s ({self.part:.2f}), "
            f"{self.idle_mib:.0f} -> {self.most_mib:.0f} MiB, {self.done} done, "
            f"CPU {self.cpu_s:.2f} s ({each:.1f} µs each), {self.bills}, {self.counted}"
        )


@contextlib.contextmanager
def _running(core: int, nice: int, run: Callable[..., None], *args: object) -> Iterator[int]:
    """`run` in a process of its own, killed at the end."""

    def begin() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.sched_setaffinity(0, {core})
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        if nice == ATTACKER_NICE:
            # Anybody who wants its core has it at once, and not only when a slice is over.
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        run(*args)

    made = FORK.Process(target=begin, daemon=True)
    made.start()
    try:
        yield made.pid or 0
    finally:
        made.kill()
        made.join(DEADLINE_S)


def _waited_s(pid: int) -> float:
    """Time in which a process was ready and had no core; 0 where the kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Battery:
    """One worker, its neighbour and room for one attack."""

    def __init__(self, stack: contextlib.ExitStack, kinds: Sequence[str], *weaknesses: str) -> None:
        cores = sorted(os.sched_getaffinity(0))
        worker_core, self._core = cores[0], cores[-1]
        self.worker = BatteryWorker(worker_core, *weaknesses)
        stack.callback(self.worker.close)
        # The attacker's apps are others than the neighbour's, and as low as the attacker itself.
        apps = ((echo, VICTIM_NICE), (echo, ATTACKER_NICE), (endless, ATTACKER_NICE))
        self._apps: list[str] = []
        self._honest: list[int] = []  # processes
        for number, (serve, nice) in enumerate(apps):
            listener = listener_at(self.worker.victim, 0 if number else MEANT_PORT)
            stack.callback(listener.close)
            pid = stack.enter_context(_running(self._core, nice, serve, listener))
            self._honest.append(pid)
            self._apps.append(f"{self.worker.victim}:{listener.getsockname()[1]}")
        self._answered = self._target(self._apps[0])
        del self._honest[1:]
        if "outbound" in kinds:
            listener = listener_at(self.worker.remote, HBONE_PORT)
            stack.callback(listener.close)
            self._honest.append(self._begin(stack, remote, listener))
        clients = [self._begin(stack, NEIGHBOURS[kind]) for kind in kinds]
        self._honest += clients
        # As the worker knows them: a pod, a peer, and addresses.
        self._names = {"demo/web", NEIGHBOUR, "127.0.0.1", *map(source_address, clients)}
        end = time.monotonic() + DEADLINE_S
        while self._answered.done.value < 200:
            assert time.monotonic() < end, "the neighbour is not served"
            time.sleep(0.01)

    def _begin(self, stack: contextlib.ExitStack, run: Callable[..., None], *more: object) -> int:
        """An honest process of the neighbour's."""
        return stack.enter_context(_running(self._core, VICTIM_NICE, run, self._answered, *more))

    def _target(self, echoes: str) -> Target:
        worker = self.worker
        return Target(
            worker.victim,
            echoes,
            self._apps[2],
            worker.plaintext,
            worker.passing,
            worker.outbound,
            worker.evil,
            worker.nobody,
            (worker.remote, worker.outbound_honest),
            worker.authority,
            FORK.RawValue(ctypes.c_int64, 0),
        )

    def _waited(self) -> list[float]:
        """Time lost by the worker, the neighbour and its app; they often wait at the same time."""
        return [_waited_s(pid) for pid in (self.worker.process.pid, *self._honest)]

    def _rates(self, windows: int) -> list[float]:
        """Messages in a second in which there was a core for all that a message needs."""
        rates, done = [], self._answered.done
        for _ in range(windows):
            start, before, waited = time.monotonic(), done.value, self._waited()
            time.sleep(WINDOW_S)
            lost = max(now - then for now, then in zip(self._waited(), waited, strict=True))
            passed = time.monotonic() - start
            rates.append((done.value - before) / max(passed - lost, passed * SERVED_PART_LEAST))
        return rates

    def _split(self, now: dict[str, int], then: dict[str, int]) -> tuple[int, int]:
        """Rise of the neighbour's figure, and of all others' together."""
        rose = {name: value - then.get(name, 0) for name, value in now.items()}
        ours = sum(more for name, more in rose.items() if name in self._names)
        return ours, sum(rose.values()) - ours

    def measure(self, attack: Callable[[Target], None]) -> Outcome:
        worker, target, answered = self.worker, self._target(self._apps[1]), self._answered.done
        idle, before = worker.mib, worker.counters()
        messages, cpu_s = answered.value, worker.cpu_s
        quiet = self._rates(QUIET_WINDOWS)
        message_s = (worker.cpu_s - cpu_s) / max(1, answered.value - messages)
        bills, slowed = worker.tenants(), worker.tenants("slowed")
        messages, cpu_s = answered.value, worker.cpu_s
        with _running(self._core, ATTACKER_NICE, attack, target):
            time.sleep(RISE_S)
            beside, most = [], idle
            for _ in range(ATTACK_WINDOWS):
                beside += self._rates(1)
                most = max(most, worker.mib)
            spent = worker.cpu_s - cpu_s
            meant = message_s * (answered.value - messages)
            ours, theirs = self._split(worker.tenants(), bills)
            _, delayed = self._split(worker.tenants("slowed"), slowed)
            after = worker.counters()
        quiet += self._rates(QUIET_WINDOWS)
        rose = {name: more for name in after if (more := after[name] - before.get(name, 0)) > 0}
        if delayed:
            rose[SLOWED] = delayed
        return Outcome(
            statistics.median(quiet),
            statistics.median(beside),
            idle,
            most,
            max(0.0, spent - max(meant, ours / 1000)),
            Bills(spent, theirs / 1000, ours / 1000, meant),
            target.done.value,
            rose,
        )


@contextlib.contextmanager
def battery(*weaknesses: str, kinds: Sequence[str] = ("stream",)) -> Iterator[Battery]:
    """`kinds` are the neighbour's (battery_neighbours.py)."""
    with contextlib.ExitStack() as stack:
        yield Battery(stack, kinds, *weaknesses)
