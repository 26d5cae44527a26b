"""Marks captured pods with annotations, so that other replicas, Istio's tools and people see them.

The replica that takes a node's report writes; one that does not lead a moment later, since the
leader may have been told as well. What a report says differs from what the pod's object says until
the mark is written and has come back; in between a pod that its node released counts as released
here, whatever its annotation still says. Nothing is written again when somebody takes a mark away
by hand: a node's next report does that. A mark that only Istio made is Istio's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import PODS
from control.server.callers.budget import Pace, Paces, Tenant
from control.server.compile.pods import REDIRECTION_ANNOTATION
from control.server.metrics import Metrics
from control.server.sources.objects import PodObject

log = logging.getLogger("leader")

OWN_ANNOTATION: Final = "tulle.io/redirection"
ENABLED: Final = "enabled"
TICK_S: Final = 0.2
FOLLOWER_S: Final = 2.0  # what one that does not lead waits, for the leader to have written
SEEN_S: Final = 5.0  # a mark that was written is in the source's next event, or it is asked for
UNKNOWN_S: Final = 60.0  # a report may be earlier than the source's news of the pod
RETRY_S_MAX: Final = 120.0
# Agents tell each replica everything anew every 30 s. What a node said to this one in that time is
# not old, wherever its stream is.
HEARD_S: Final = 75.0
# Each is an event for whoever watches pods; a cluster of 10,000 is marked in two minutes.
MARKS: Final = Pace(None, per_s=100, burst=200)
PENDING_MAX: Final = 65_536  # pods of 16 nodes that say as much as they may
_ALL: Final = Tenant("cluster", "marks")


@dataclass(slots=True)
class PendingMark:
    """`wanted`: captured. `next_s`: no try before. `is_written`: the API server took it.
    `is_blind`: the mark that is to go may not have been seen yet, so nothing counts as gone."""

    node: str
    wanted: bool
    since_s: float
    next_s: float = 0.0
    wait_s: float = 1.0
    is_written: bool = False
    is_blind: bool = False

    def is_met(self, pod: PodObject) -> bool:
        return is_marked(pod) == self.wanted and not self.is_blind


class _MarkedMeta(msgspec.Struct):
    annotations: dict[str, str] | None = None


class _MarkedPod(msgspec.Struct):
    metadata: _MarkedMeta


class CaptureMarks:
    """`pod_of(uid)` is a pod as its object is now. `is_here(node)`: its agent reports to this
    replica. `released(node, uids)`: its pods are captured no longer, as another replica was told.
    """

    def __init__(
        self,
        client: KubeClient,
        pod_of: Callable[[str], PodObject | None],
        is_here: Callable[[str], bool],
        released: Callable[[str, frozenset[str]], Awaitable[None]],
        *,
        leads: Callable[[], bool] = lambda: True,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._client = client
        self._pod_of = pod_of
        self._metrics = metrics
        self._clock = clock
        self._pace = Paces(MARKS)
        self._pending: dict[str, PendingMark] = {}
        self._marked: dict[str, set[str]] = {}  # node → uids of pods that were seen marked last
        self._seen: dict[str, str] = {}  # uid of such a pod → its node
        self._unmarked: dict[str, set[str]] = {}  # node → uids whose mark went
        self._heard_s: OrderedDict[str, float] = OrderedDict()  # node → its last report
        self._is_here = is_here
        self._leads = leads
        self._released = released
        self._told = ""

    def reported(self, node: str, uids: Iterable[str]) -> frozenset[str]:
        """A node's whole report; the pods that it has released, and whose mark is still there."""
        now_s = self._clock.monotonic_s()
        self._hear(node, now_s)
        captured = set(uids)
        released = self._marked.get(node, set()) - captured
        for uid in captured | released:
            pod = self._pod_of(uid)
            if pod is not None and (pod.node != node or is_marked(pod) == (uid in captured)):
                self._pending.pop(uid, None)
            elif len(self._pending) < PENDING_MAX:
                known = self._pending.get(uid)
                if known is None or known.wanted != (uid in captured):
                    # Agents tell every replica: the others wait for the leader's mark.
                    next_s = 0.0 if self._leads() else now_s + FOLLOWER_S
                    self._pending[uid] = PendingMark(node, uid in captured, now_s, next_s)
        for uid, each in list(self._pending.items()):
            if each.node == node and each.wanted and uid not in captured:
                self._turn_back(uid, each)
        return frozenset(released)

    def _hear(self, node: str, now_s: float) -> None:
        """The node has spoken: marks that went before say nothing that it does not."""
        self._unmarked.pop(node, None)
        self._heard_s[node] = now_s
        self._heard_s.move_to_end(node)
        while now_s - next(iter(self._heard_s.values())) >= HEARD_S:
            self._heard_s.popitem(last=False)

    def _turn_back(self, uid: str, pending: PendingMark) -> None:
        """Released before its mark was seen."""
        self._forget(uid, pending)
        if pending.is_written:
            now_s = self._clock.monotonic_s()
            self._pending[uid] = PendingMark(pending.node, False, now_s, is_blind=True)

    def seen(self, uid: str, pod: PodObject) -> PodObject:
        """The pod, without a mark that its node has taken back. Called with every new state of the
        source: here marks are seen to come and to go."""
        pending = self._pending.get(uid)
        was_marked = self._forget_mark(uid)
        if is_marked(pod):
            self._seen[uid] = pod.node
            self._marked.setdefault(pod.node, set()).add(uid)
        elif was_marked:
            self._unmarked.setdefault(pod.node, set()).add(uid)
        if pending is not None and pending.is_met(pod):
            self._forget(uid, pending)
        if pending is None or pending.wanted or REDIRECTION_ANNOTATION not in pod.meta.annotations:
            return pod
        left = {
            name: each
            for name, each in pod.meta.annotations.items()
            if name not in (REDIRECTION_ANNOTATION, OWN_ANNOTATION)
        }
        return replace(pod, meta=replace(pod.meta, annotations=left))

    def gone(self, uid: str) -> None:
        """The pod is not there any more."""
        self._forget_mark(uid)

    def _forget_mark(self, uid: str) -> bool:
        """True if the pod was seen marked."""
        node = self._seen.pop(uid, None)
        if node is None:
            return False
        uids = self._marked[node]
        uids.discard(uid)
        if not uids:
            del self._marked[node]
        return True

    async def run(self) -> None:
        while True:
            await self.step()
            await asyncio.sleep(TICK_S)

    async def step(self) -> None:
        """Write the marks that are due."""
        await self._take_over()
        for uid, pending in list(self._pending.items()):
            pod = self._pod_of(uid)
            now_s = self._clock.monotonic_s()
            if pod is None:
                if now_s >= pending.since_s + UNKNOWN_S or not pending.wanted:
                    self._forget(uid, pending)
            elif (
                is_marked(pod) == pending.wanted and not pending.is_blind
            ) or pod.node != pending.node:
                self._forget(uid, pending)
            elif now_s >= pending.next_s:
                wait_s = self._pace.spend(_ALL, 1, now_s)
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                await self._write(uid, pod, pending)

    def _forget(self, uid: str, pending: PendingMark) -> None:
        if self._pending.get(uid) is pending:
            del self._pending[uid]

    async def _write(self, uid: str, pod: PodObject, pending: PendingMark) -> None:
        if pending.is_written and not await self._lost(uid, pod, pending):
            return
        value = ENABLED if pending.wanted else None
        annotations = {OWN_ANNOTATION: value, REDIRECTION_ANNOTATION: value}
        # The uid is a precondition: another pod of this name is not touched.
        body: dict[str, Any] = {"metadata": {"uid": pod.meta.uid, "annotations": annotations}}
        try:
            path = PODS.path(pod.meta.namespace, pod.meta.name)
            await self._client.merge(path, body, msgspec.Raw)
        except MeshError as exc:
            now_s = self._clock.monotonic_s()
            if isinstance(exc, ApiError) and exc.code in (404, 422):
                self._forget(uid, pending)  # that pod is gone
                return
            after_s = exc.retry_after_s if isinstance(exc, ApiError) else None
            pending.next_s = now_s + max(pending.wait_s, after_s or 0.0)
            pending.wait_s = min(pending.wait_s * 2, RETRY_S_MAX)
            self._metrics.writes.labels("Pod", "failed").inc()
            self._tell(pod, exc)
        else:
            self._told = ""
            pending.is_written, pending.is_blind = True, False
            pending.next_s = self._clock.monotonic_s() + SEEN_S
            if pending.wanted and self._pending.get(uid) is not pending:
                self._turn_back(uid, pending)  # released while it was written
            self._metrics.writes.labels("Pod", "written").inc()

    async def _lost(self, uid: str, pod: PodObject, pending: PendingMark) -> bool:
        """True for a mark that was written, is not there, and belongs there: a state between two
        that the source gives may be missed, so the API server is asked."""
        pending.next_s = self._clock.monotonic_s() + SEEN_S
        try:
            path = PODS.path(pod.meta.namespace, pod.meta.name)
            found = await self._client.get(path, _MarkedPod)
        except MeshError as exc:
            if isinstance(exc, ApiError) and exc.code == 404:
                self._forget(uid, pending)
            return False
        annotations = found.metadata.annotations or {}
        if (annotations.get(OWN_ANNOTATION) == ENABLED) == pending.wanted:
            return False  # its news is on the way
        if not pending.wanted or self._is_here(pending.node):
            return True
        self._forget(uid, pending)
        self._unmarked.setdefault(pod.node, set()).add(uid)
        return False

    def _tell(self, pod: PodObject, exc: MeshError) -> None:
        """Once, until a write has succeeded: it is the same for every pod."""
        kind = exc.kind if isinstance(exc, ApiError) else exc.reason
        if kind != self._told:
            self._told = kind
            event(log, logging.WARNING, "capture.not_marked", object=pod.meta.key, error=exc)

    async def _take_over(self) -> None:
        """Nodes that report to another replica by now: their pods' marks went, so what they said
        here is old. One that has spoken here lately may do so again, and is waited for: anybody
        who may change a pod can take its mark away."""
        now_s = self._clock.monotonic_s()
        for node in list(self._unmarked):
            if now_s - self._heard_s.get(node, -HEARD_S) < HEARD_S and not self._is_here(node):
                continue
            uids = self._unmarked.pop(node, set())  # it may have spoken meanwhile
            if uids and not self._is_here(node):
                await self._released(node, frozenset(uids - self._pending.keys()))


def is_marked(pod: PodObject) -> bool:
    """True for a pod with our own mark."""
    annotations: Mapping[str, str] = pod.meta.annotations
    return annotations.get(OWN_ANNOTATION) == ENABLED
