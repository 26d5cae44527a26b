"""The one place where news becomes pushes: objects and captures in, changed streams out."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from control.kit.clock import Clock
from control.kit.log import event
from control.model.intent import Intent
from control.server.compile.holdings import Holdings
from control.server.compile.memo import MeshMemo
from control.server.compile.mesh import (
    EMPTY,
    CompiledMesh,
    compile_mesh,
    knows_place,
    noted,
    recapture,
)
from control.server.compile.pods import is_captured, pod_uid, with_true_mirrors
from control.server.compile.settings import Settings
from control.server.metrics import Metrics, short_type
from control.server.sources.captured import CapturedSet
from control.server.sources.objects import Objects, PodObject
from control.server.sources.problem import UNREADABLE, Problem
from control.server.sources.snapshot import Snapshot
from control.server.xds.cache import Cache, Change
from control.wire.types import AUTHORIZATION_TYPE

log = logging.getLogger("source")

DEBOUNCE_S = 0.02  # files of one `apply` arrive together
DEBOUNCE_MAX_S = 0.2  # but a steady trickle must not hold news up
# Reports of many nodes are published together: at once after a quiet time, then this often.
CAPTURES_EVERY_S = 0.05
CAPTURES_SLICE = 100  # pods, some 5 ms
# Notes on disputed addresses follow reports after a quiet time: ten thousand take 0.1 s, and
# whoever disputes an address must not make the reports of its pod dear.
NOTES_QUIET_S = 1.0
# Replicas are replaced one after the other, each in a few seconds.
LET_GO_S = 15.0

LINE_EVERY_S = 10.0  # a rollout publishes twenty times a second

Listener = Callable[[Change], None]


class Publisher:
    def __init__(
        self, settings: Settings, captured: CapturedSet, metrics: Metrics, clock: Clock
    ) -> None:
        self.settings = settings
        self.cache = Cache()
        self.mesh: CompiledMesh = EMPTY
        self.objects = Objects()
        self.problems: tuple[Problem, ...] = ()
        self.ignored: Mapping[str, int] = {}
        self._counts: Mapping[str, int] = {}
        self.generation = 0
        self._captured = captured
        self._holdings = Holdings()
        self._memo = MeshMemo()
        self._metrics = metrics
        self._clock = clock
        self._listeners: set[Listener] = set()
        self._news = asyncio.Event()
        self._pods: dict[str, list[PodObject]] = {}  # by uid, as last compiled
        self._homes: dict[str, str] = {}  # uid → node
        self._reported: set[str] = set()  # uids of reports that are not told yet
        self._reports = asyncio.Event()
        self._noted_revision = 0  # that the mesh's notes were made from
        self._told: asyncio.Future[None] | None = None
        self._line_s = -LINE_EVERY_S
        self._untold: Counter[str] = Counter()  # since the last line

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every publication; the returned function ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def offer(self, snapshot: Snapshot) -> None:
        """New objects from the source; published by `run` after the debounce."""
        self._tell_problems(snapshot.problems)
        pods = with_true_mirrors(snapshot.objects.pods)
        self.objects, self.problems = replace(snapshot.objects, pods=pods), snapshot.problems
        self.ignored = snapshot.ignored
        counts = self.objects.counts()
        self._metrics.show_source(counts, self.problems)
        # An API server has news all the time, and what comes of it has a line of its own.
        level = logging.DEBUG if self._counts else logging.INFO
        self._counts = counts
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
        self.settings = replace(self.settings, keeps_pods=False)
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
            started_s = self._clock.monotonic_s()
            self.publish()
            # Streams are served in between, however much there is to publish.
            await asyncio.sleep(self._clock.monotonic_s() - started_s)

    def publish(self) -> None:
        """Compile, encode what changed, tell every stream."""
        started_s = self._clock.monotonic_s()
        self._pods, self._homes = {}, {}
        pods = []
        for each in self.objects.pods:
            pods.append(each)
            if not each.is_terminal:
                uid = pod_uid(each.meta)
                self._pods.setdefault(uid, []).append(each)
                self._homes[uid] = each.node
                pods[-1] = self._captured.placed(uid, each)
        captured = self._captured.in_force(self._homes)
        self._captured.weigh(each.node for each in pods if is_captured(each, False))
        said = self.mesh.notes
        found = replace(self.objects, pods=tuple(pods))
        self.mesh = compile_mesh(
            found,
            self.settings,
            captured,
            self._holdings,
            self._memo,
            believed=self._captured.believed,
        )
        self._noted_revision = self._holdings.revision
        self._tell_notes(said)
        change = self.cache.update(self.mesh)
        took_s = self._clock.monotonic_s() - started_s
        self._metrics.compile_s.observe(took_s)
        for type_url in self.cache.types:
            entries = self.cache.entries(type_url)
            self._metrics.resources.labels(short_type(type_url)).set(len(entries))
        self._tell(change, took_s)

    def enrolled_on(self, node: str) -> frozenset[str]:
        """Uids of the pods of a node that belong into the mesh."""
        pods = self.mesh.pods.values()
        return frozenset(each.uid for each in pods if each.node == node and each.enrolled)

    def believed(self) -> list[Intent]:
        """Pods that count as captured though their node has not reported."""
        pods = self.mesh.pods
        return [pods[uid] for uid in self._captured.believed(pods.values())]

    def nodes(self) -> frozenset[str]:
        """Nodes that have a pod."""
        return frozenset(self._homes.values())

    def refresh(self) -> None:
        """Publish what there is once more, soon: what is believed has changed."""
        self._news.set()

    async def tell_captures(self, uids: Iterable[str]) -> None:
        """Publish what reports changed: only the workloads of these pods, together with those of
        other nodes' reports. Returns when every stream was told."""
        self._reported.update(uids)
        if self._told is None:
            self._told = asyncio.get_running_loop().create_future()
        self._reports.set()
        await asyncio.shield(self._told)

    async def run_captures(self) -> None:
        """Tell what was reported, in slices: others are served in between."""
        while True:
            await self._next_reports()
            self._reports.clear()
            uids, self._reported = list(self._reported), set()
            told, self._told = self._told, None
            for start in range(0, len(uids), CAPTURES_SLICE):
                self._recapture(uids[start : start + CAPTURES_SLICE])
                await asyncio.sleep(0)
            if told is not None:
                told.set_result(None)
            await asyncio.sleep(CAPTURES_EVERY_S)

    async def _next_reports(self) -> None:
        if self._holdings.revision != self._noted_revision:
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTES_QUIET_S):
                    await self._reports.wait()
                    return
            self._note()
        await self._reports.wait()

    def _note(self) -> None:
        said = self.mesh.notes
        self.mesh = noted(self.mesh)
        self._noted_revision = self._holdings.revision
        self._tell_notes(said)

    def _recapture(self, uids: list[str]) -> None:
        started_s = self._clock.monotonic_s()
        captured = self._captured.in_force(
            {uid: self._homes[uid] for uid in uids if uid in self._homes}
        )
        intents = (self.mesh.pods[uid] for uid in uids if uid in self.mesh.pods)
        captured |= self._captured.believed(intents)
        placed = self._captured.placed
        pods = [placed(uid, pod) for uid in uids for pod in self._pods.get(uid, ())]
        if not all(knows_place(self.mesh, pod, self.settings) for pod in pods):
            self.publish()
            return
        changed = recapture(self.mesh, pods, self.settings, captured)
        if changed:
            workloads = {**self.mesh.workloads, **changed}
            kept = {name: each for name, each in workloads.items() if each is not None}
            self.mesh = replace(self.mesh, workloads=kept)
            change = self.cache.update_workloads(changed)
            self._tell(change, self._clock.monotonic_s() - started_s)

    def _tell_notes(self, before: tuple[Problem, ...]) -> None:
        """Each note once, when it appears."""
        said = set(before)
        for note in self.mesh.notes:
            if note not in said:
                _tell(note, "object.noted")

    def _tell(self, change: Change, took_s: float) -> None:
        if not change:
            return
        self.generation += 1
        self._tell_published(change, took_s)
        for listener in list(self._listeners):
            listener(change)

    def _tell_published(self, change: Change, took_s: float) -> None:
        """One line for each change of policies; for pods and services one after a quiet time, then
        one for all of some seconds. The others are there for those who debug."""
        counts = {short_type(url).lower(): len(names) for url, names in change.items()}
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
