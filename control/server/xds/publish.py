"""The one place where news becomes pushes: objects and captures in, changed streams out."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from control.kit.clock import Clock
from control.kit.log import event
from control.kit.memory import freeze
from control.kit.slices import emptied, in_slices
from control.model.intent import Intent
from control.model.route import WaypointKey
from control.server.compile.mesh import Mesh
from control.server.compile.policies import PolicyStatus
from control.server.compile.settings import Settings
from control.server.gateway.gateways import Gateways
from control.server.metrics import Metrics, short_type
from control.server.sources.captured import CapturedSet
from control.server.sources.objects import AnyObject, Key
from control.server.sources.problem import UNREADABLE, Problem
from control.server.sources.snapshot import Snapshot
from control.server.xds.cache import Cache, Change
from control.server.xds.racks import Encoder, Racks, envoy_encoder
from control.wire.types import AUTHORIZATION_TYPE

log = logging.getLogger("source")

DEBOUNCE_S = 0.02  # files of one `apply` arrive together
DEBOUNCE_MAX_S = 0.2  # but a steady trickle must not hold news up
# Reports of many nodes are published together: at once after a quiet time, then this often.
CAPTURES_EVERY_S = 0.05
# Remarks on disputed addresses follow reports after a quiet time: whoever disputes an address must
# not make the reports of its pod dear.
NOTES_QUIET_S = 1.0
# Replicas are replaced one after the other, each in a few seconds.
LET_GO_S = 15.0

# Resources of a change whose objects the collector need not look at: they stay, and 50,000 of them
# take it 0.2 s.
FREEZE_MIN = 5_000

LINE_EVERY_S = 10.0  # a rollout publishes twenty times a second

Listener = Callable[[Change], None]
_NOBODY: Final = frozenset[Listener]()


class Publisher:
    def __init__(
        self,
        settings: Settings,
        captured: CapturedSet,
        metrics: Metrics,
        clock: Clock,
        encoder: Callable[[], Encoder] = envoy_encoder,
    ) -> None:
        """`encoder` makes the resources of a waypoint's Envoys."""
        self.cache = Cache()
        self.racks = Racks(encoder)
        self.gateways = Gateways(settings)
        self.mesh = Mesh(settings, captured)
        self.problems: tuple[Problem, ...] = ()
        self.ignored: Mapping[str, int] = {}
        self.counts: Mapping[str, int] = {}  # objects by kind
        self.generation = 0
        self._captured = captured
        self._metrics = metrics
        self._clock = clock
        self._listeners: dict[WaypointKey | None, set[Listener]] = {}  # None: of the mesh
        self._news = asyncio.Event()
        self._changed: dict[Key, AnyObject | None] = {}  # not published yet; None: gone
        self._reported: set[str] = set()  # uids of reports that are not told yet
        self._reports = asyncio.Event()
        self._publishing = asyncio.Lock()
        self.shown = asyncio.Event()  # while it is not set, the cache has half of a change
        self.shown.set()
        self._told: asyncio.Future[None] | None = None
        self._line_s = -LINE_EVERY_S
        self._untold: Counter[str] = Counter()  # since the last line

    @property
    def settings(self) -> Settings:
        return self.mesh.settings

    def listen(self, listener: Listener, waypoint: WaypointKey | None = None) -> Callable[[], None]:
        """Call `listener` after every publication that changes the mesh, or what this waypoint is
        told; the returned function ends that."""
        listeners = self._listeners.setdefault(waypoint, set())
        listeners.add(listener)

        def stop() -> None:
            listeners.discard(listener)
            if not listeners and self._listeners.get(waypoint) is listeners:
                del self._listeners[waypoint]

        return stop

    @property
    def policy_statuses(self) -> tuple[PolicyStatus, ...]:
        """Every policy's, by whoever enforces it: the nodes, or waypoints."""
        of_waypoints = self.gateways.policy_statuses
        found = self.mesh.rulebook.statuses | of_waypoints if of_waypoints else None
        if found is None:
            return self.mesh.statuses
        return tuple(found[key] for key in sorted(found))

    @property
    def notes(self) -> tuple[Problem, ...]:
        """Notes on every object, by whoever made something of it."""
        return (*self.mesh.notes, *self.gateways.notes)

    def is_waypoint(self, key: WaypointKey) -> bool:
        return key in self.racks

    def offer(self, snapshot: Snapshot) -> None:
        """New objects from the source; published by `run` after the debounce."""
        if snapshot.problems != self.problems:
            self._tell_problems(snapshot.problems)
            self._metrics.show_problems(snapshot.problems)
            self.problems = snapshot.problems
        if snapshot.is_whole:
            held = (*self.mesh.keys(), *self.gateways.keys(), *self._changed)
            self._changed.update({each: None for each in held if each not in snapshot.changed})
        self._changed.update(snapshot.changed)
        self.ignored = snapshot.ignored
        counts = snapshot.counts()
        self._metrics.show_objects(counts)
        # An API server has news all the time, and what comes of it has a line of its own.
        level = logging.DEBUG if self.counts else logging.INFO
        self.counts = counts
        event(
            log,
            level,
            "source.loaded",
            problems=len(self.problems),
            **{kind: count for kind, count in counts.items() if count},
        )
        event(log, logging.DEBUG, "source.ignored", **self.ignored)
        self._news.set()

    async def let_go(self) -> None:
        """A mesh that is leaving: its pods go once no replica has a policy any more. Those that are
        out have no identity, and a node that still had STRICT would refuse them."""
        if not self.settings.keeps_pods:
            return
        await asyncio.sleep(LET_GO_S)
        async with self._publishing:
            self.mesh.let_go()
        event(log, logging.INFO, "mesh.let_go")
        self._news.set()

    async def run(self) -> None:
        """Publish what was offered, a moment after it went quiet."""
        while True:
            await self._news.wait()
            deadline_s = self._clock.monotonic_s() + DEBOUNCE_MAX_S
            while self._news.is_set() and self._clock.monotonic_s() < deadline_s:
                self._news.clear()
                await asyncio.sleep(DEBOUNCE_S)
            self._news.clear()
            await self._publish(with_objects=True)

    async def _publish(self, with_objects: bool) -> None:
        async with self._publishing:
            await in_slices(self._steps(with_objects), self._clock)

    def publish(self) -> None:
        """At once: for the start, when nobody is served yet."""
        for _ in self._steps():
            pass

    def _steps(self, with_objects: bool = True) -> Iterator[None]:
        """Compile what changed, encode what differs, tell every stream."""
        started_s = self._clock.monotonic_s()
        changed: dict[Key, AnyObject | None] = {}
        if with_objects:
            changed, self._changed = self._changed, changed
        uids, self._reported = self._reported, set()
        yield from self.mesh.steps(changed, uids)
        yield from self._weigh()
        delta = self.mesh.take_delta()
        yield from self.cache.steps(delta)
        yield from self.gateways.steps(changed, delta)
        del delta  # what nobody has any more goes with the steps of `commit`
        yield from self.racks.steps(self.gateways.take_delta().values())
        if with_objects:
            yield from self._remark()
        self.shown.clear()
        try:
            change = yield from self.cache.commit()
            of_waypoints = yield from self.racks.commit(self.cache.revision)
        finally:
            self.shown.set()
        took_s = self._clock.monotonic_s() - started_s
        self._metrics.compile_s.observe(took_s)
        for type_url in change:
            entries = self.cache.entries(type_url)
            self._metrics.resources.labels(short_type(type_url)).set(len(entries))
        for type_url in {url for each in of_waypoints.values() for url in each}:
            self._metrics.resources.labels(short_type(type_url)).set(self.racks.count(type_url))
        if self.racks.has_more:
            self._news.set()
        self._tell(change, of_waypoints, took_s)
        if sum(map(len, change.values())) >= FREEZE_MIN:
            freeze()
        yield from emptied(changed)
        for names in change.values():
            yield from emptied(names)

    def _weigh(self) -> Iterator[None]:
        """While captures are in doubt: a node that had an agent has marked pods."""
        if not self._captured.doubt.is_on:
            return
        before = self._doubted()
        self._captured.weigh(self.mesh.residents.marked)
        for node in before ^ self._doubted():
            yield from self.mesh.steps({}, self.mesh.residents.uids_on(node))

    def _doubted(self) -> set[str]:
        about = self._captured.doubt.about
        return {each for each in self.mesh.residents.nodes if about(each)}

    def _remark(self) -> Iterator[None]:
        """Each note is told once, when it appears."""
        yield from self.mesh.remark()
        for note in self.mesh.notebook.take_new():
            _tell(note, "object.noted")
            yield

    async def indexed(self) -> None:
        """Return once the cache can be asked by name, which many meshes never are."""
        if not self.cache.has_index:
            await in_slices(self.cache.index_steps(), self._clock)
            freeze()

    def enrolled_on(self, node: str) -> frozenset[str]:
        """Uids of the pods of a node that belong into the mesh."""
        pods = self.mesh.pods
        return frozenset(uid for uid in self.mesh.residents.uids_on(node) if pods[uid].enrolled)

    def believed(self) -> list[Intent]:
        """Pods that count as captured though their node has not reported."""
        uids = (uid for node in self._doubted() for uid in self.enrolled_on(node))
        return [self.mesh.pods[uid] for uid in uids]

    def nodes(self) -> Collection[str]:
        """Nodes that have a pod."""
        return self.mesh.residents.nodes

    def refresh(self, uids: Iterable[str]) -> None:
        """Publish these pods once more, soon: what is believed of them has changed."""
        self._reported.update(uids)
        self._reports.set()

    async def tell_captures(self, uids: Iterable[str]) -> None:
        """Publish what reports changed: only the workloads of these pods, together with those of
        other nodes' reports. Returns when every stream was told."""
        if self._told is None:
            self._told = asyncio.get_running_loop().create_future()
        self.refresh(uids)
        await asyncio.shield(self._told)

    async def run_captures(self) -> None:
        """Tell what was reported."""
        while True:
            await self._next_reports()
            self._reports.clear()
            told, self._told = self._told, None
            await self._publish(with_objects=False)
            if told is not None:
                told.set_result(None)
            await asyncio.sleep(CAPTURES_EVERY_S)

    async def _next_reports(self) -> None:
        if self.mesh.has_remarks:
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTES_QUIET_S):
                    await self._reports.wait()
                    return
            async with self._publishing:
                await in_slices(self._remark(), self._clock)
        await self._reports.wait()

    def _tell(
        self, change: Change, of_waypoints: Mapping[WaypointKey, Change], took_s: float
    ) -> None:
        if not change and not of_waypoints:
            return
        self.generation += 1
        self._tell_published(change, of_waypoints, took_s)
        if change:
            for listener in list(self._listeners.get(None, _NOBODY)):
                listener(change)
        for key, each in of_waypoints.items():
            for listener in list(self._listeners.get(key, _NOBODY)):
                listener(each)

    def _tell_published(
        self, change: Change, of_waypoints: Mapping[WaypointKey, Change], took_s: float
    ) -> None:
        """One line for each change of policies; for pods and services one after a quiet time, then
        one for all of some seconds. The others are there for those who debug."""
        counts = {short_type(url).lower(): len(names) for url, names in change.items()}
        if of_waypoints:
            counts["waypoints"] = len(of_waypoints)
        took_ms = round(took_s * 1000, 1)
        now_s = self._clock.monotonic_s()
        if AUTHORIZATION_TYPE not in change and now_s - self._line_s < LINE_EVERY_S:
            self._untold.update(counts, publications=1)
            event(log, logging.DEBUG, "mesh.published", took_ms=took_ms, **counts)
            return
        untold = {f"before_{name}": count for name, count in self._untold.items()}
        self._line_s = now_s
        self._untold.clear()
        event(log, logging.INFO, "mesh.published", took_ms=took_ms, **counts, **untold)

    def _tell_problems(self, problems: tuple[Problem, ...]) -> None:
        """Each problem once, when it appears."""
        known = set(self.problems)
        for each in problems:
            if each in known:
                continue
            _tell(each, _event_of(each))


def _event_of(problem: Problem) -> str:
    if problem.reason == UNREADABLE:
        return "source.unreadable"  # nothing is wrong with the object
    policy = problem.object.startswith(("AuthorizationPolicy", "PeerAuthentication"))
    return "policy.rejected" if policy else "manifest.rejected"


def _tell(found: Problem, name: str) -> None:
    event(
        log,
        logging.WARNING,
        name,
        file=found.file,
        line=found.line,
        object=found.object,
        reason=found.reason,
        message=found.message,
    )
