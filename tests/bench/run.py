"""One run: for each topology and case, rounds in which every system has its turn.

Interleaved, so that a noisy minute meets all of them. A measurement during which others used the
machine is thrown away, said so, and tried again a bounded number of times.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agent.lab.daemons import tail
from tests.bench import goals, meter, parse, peers
from tests.bench.bed import Bed, Cores, bed
from tests.bench.cases import bulk, capture, pingpong, requests
from tests.bench.cases.case import Case, Settings, Values
from tests.bench.manifests import NODE_A
from tests.bench.model import (
    BenchError,
    Measurement,
    Result,
    System,
    Topology,
)
from tests.bench.target import Target, direct_target, machine

ATTEMPTS_MAX = 3  # a machine that is never quiet must not hold up the run for ever
QUIET_WAIT_S, QUIET_LOOK_S = 5.0, 0.25
WARM_S = 1.0  # each of three kinds
WARM_CONNECTIONS = 16
NODE_TOPOLOGY = "one host"  # for cases measured without a lab
_OPENED = "istio_tcp_connections_opened_total"


@dataclass(frozen=True, slots=True)
class Plan:
    """Cases, systems and topologies to measure, and the number of rounds."""

    cases: Sequence[Case]
    systems: Sequence[System]
    topologies: Sequence[Topology]
    rounds: int
    settings: Settings
    foreign_max: float
    ztunnel: Sequence[str] = ()  # command of one that is not ours
    workers: int = 1  # each of our ztunnels has, and threads each other proxy


@dataclass(slots=True)
class Run:
    plan: Plan
    say: Callable[[str], None]
    cores: Cores = field(default_factory=Cores.choose)
    made: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)  # facts about the machine, from the mesh

    def execute(self) -> None:
        """Fills `made` and `notes` as it goes, so that measurements outlive a failure."""
        if System.TULLE in self.plan.systems and capture.CASES[0] in self.plan.cases:
            self._not_enrolled()
        if not self._wanted():
            return
        self.say("bringing the lab up")
        foreign = self.plan.ztunnel if System.ZTUNNEL in self.plan.systems else ()
        workers = self.plan.workers
        with bed(self.cores, lambda text: self.say(f"    {text}"), foreign, workers) as made:
            self.found[goals.SHORTCUT] = made.shortcut(NODE_A)
            for leaves_traces in (False, True):
                cases = [each for each in self.plan.cases if each.leaves_traces is leaves_traces]
                for topology in self.plan.topologies:
                    self._topology(made, topology, cases)

    def result(self, started_at: datetime, options: dict[str, object]) -> Result:
        return Result(
            started_at=started_at.isoformat(timespec="seconds"),
            machine=machine() | peers.versions() | self.found,
            options=options,
            measurements=tuple(self.made),
            notes=tuple(self.notes),
        )

    def _wanted(self) -> bool:
        """True when some case covers a system and a topology of the plan."""
        return any(
            set(case.systems) & set(self.plan.systems)
            and set(case.topologies) & set(self.plan.topologies)
            for case in self.plan.cases
        )

    def _topology(self, made: Bed, topology: Topology, cases: Sequence[Case]) -> None:
        cases = [each for each in cases if topology in each.topologies]
        useful = {system for each in cases for system in each.systems}
        wanted = [system for system in self.plan.systems if system in useful]
        if not wanted:
            return
        with peers.running(made, wanted, topology, self.plan.workers) as pairs:
            targets = [*_without_peers(made, topology, wanted), *pairs]
            self.say(f"{topology.value}: warming up")
            for target in targets:
                self._warm(made, target)
            before = _paths(made)
            for case in cases:
                self._case(made, case, [each for each in targets if each.system in case.systems])
            if topology is Topology.SAME and System.TULLE in wanted:
                self._note(_direct_share(before, _paths(made)))

    def _warm(self, made: Bed, target: Target) -> None:
        """Dial every port once: no case is about the first connection of a pair."""
        once = Settings(WARM_S)
        requests.load(made, target, WARM_CONNECTIONS, WARM_S)
        try:
            pingpong.run(made, target, once)
            bulk.run(1, False, made, target, once)
        except BenchError as exc:
            self._note(f"{target.topology.value} {target.system.value}: warm-up: {exc}")

    def _case(self, made: Bed, case: Case, targets: list[Target]) -> None:
        for number in range(1, (1 if case.once else self.plan.rounds) + 1):
            for target in targets:
                self._measure(
                    (case.name, target.topology.value, target.system.value, number),
                    lambda one=target: case.run(made, one, self.plan.settings),  # type: ignore[misc]  # bound here
                    made,
                )

    def _measure(
        self, key: tuple[str, str, str, int], once: Callable[[], Values], made: Bed | None
    ) -> None:
        case, topology, system, number = key
        name = f"{topology} {case} {system} round {number}"
        for attempt in range(1, ATTEMPTS_MAX + 1):
            window = meter.Window.open(self.cores.both, made.cgroup if made else None)
            try:
                values = once()
            except BenchError as exc:
                self._note(f"{name}: no figure: {exc}")
                if made is not None:
                    self._check_alive(made)
                return
            foreign = window.foreign()
            kept = foreign <= self.plan.foreign_max
            self.made.append(
                Measurement(case, topology, system, number, attempt, values, foreign, kept)
            )
            if kept:
                self.say(f"{name}: {brief(values)} (foreign {foreign:.0%})")
                return
            self.say(f"{name}: thrown away, {foreign:.0%} of the machine was busy with others")
            self._await_quiet(made)
        self._note(f"{name}: thrown away {ATTEMPTS_MAX} times, the machine was busy with others")

    def _await_quiet(self, made: Bed | None) -> None:
        """Wait for a quiet machine, but not for long."""
        end_s = time.monotonic() + QUIET_WAIT_S
        while time.monotonic() < end_s:
            window = meter.Window.open(self.cores.both, made.cgroup if made else None)
            time.sleep(QUIET_LOOK_S)
            if window.foreign() <= self.plan.foreign_max:
                return

    def _check_alive(self, made: Bed) -> None:
        """A measurement that failed because a part of the mesh died must say so."""
        for name, one in made.state.processes.items():
            if meter.threads(one.pid):
                continue
            log = made.lab.run_dir / "logs" / f"{name}.log"
            raise BenchError(f"{name} has ended:\n{tail(log)}")

    def _not_enrolled(self) -> None:
        with tempfile.TemporaryDirectory(prefix="tulle-bench-") as cache:
            for number in range(1, self.plan.rounds + 1):
                self._measure(
                    ("capture", NODE_TOPOLOGY, System.TULLE.value, number),
                    lambda: capture.not_enrolled(
                        self.cores.load, Path(cache), self.plan.settings.seconds
                    ),
                    None,
                )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.say(text)


def _without_peers(made: Bed, topology: Topology, wanted: Sequence[System]) -> list[Target]:
    return [
        direct_target(made, system, topology)
        for system in (System.NONE, System.TULLE, System.ZTUNNEL)
        if system in wanted
    ]


def brief(values: Values) -> str:
    return "  ".join(f"{name} {_number(value)}" for name, value in list(values.items())[:4])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _paths(made: Bed) -> dict[str, float]:
    """Connections that the ztunnel of the client's node has opened, by the way they took."""
    return parse.counter(made.metrics(NODE_A), _OPENED, "path")


def _direct_share(before: dict[str, float], after: dict[str, float]) -> str:
    opened = {path: number - before.get(path, 0.0) for path, number in after.items()}
    direct, all_of_them = opened.get("direct", 0.0), sum(opened.values())
    return f"same-node: {direct:,.0f} of {all_of_them:,.0f} connection reports say path=direct"


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 the time of a report, not of a decision


def elapsed(started_s: float) -> str:
    return f"{(time.monotonic() - started_s) / 60:.1f} min"
