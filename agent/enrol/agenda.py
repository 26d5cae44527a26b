"""The next step of every pod, by the track that takes it; plans anew only what has changed.

A node has hundreds of pods and each has a handful of steps: planning all of them after every step
would cost the square of their number. A plan depends on the pod's facts, the ztunnels and the
clock. The book reports changes of the first two; a pod that waits says until when.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping

from agent.enrol import plan
from agent.enrol.plan import NodeFacts, PodFacts, Step

ZtunnelStep = plan.AddToZtunnel | plan.DeleteFromZtunnel


class Agenda:
    def __init__(self) -> None:
        self._stale: dict[str, None] = {}  # in the order in which they changed
        self._steps: dict[str, Step] = {}
        self._kernel: dict[str, Step] = {}
        self._adds: dict[int, dict[str, ZtunnelStep]] = {}  # ztunnel → uid → step
        self._deletes: dict[int, dict[str, ZtunnelStep]] = {}
        self._due_s: dict[str, float] = {}
        self._alarms: list[tuple[float, str]] = []  # a heap; void when _due_s has another time

    def changed(self, uids: Iterable[str]) -> None:
        self._stale.update(dict.fromkeys(uids))

    def hurry(self, uids: Iterable[str]) -> None:
        """Plan these, which have changed, before all others: their steps are given out first."""
        self._stale = dict.fromkeys(uids) | self._stale

    def refresh(self, pods: Mapping[str, PodFacts], node: NodeFacts, now_s: float) -> None:
        """Plan the pods that have changed or whose time has come."""
        while self._alarms and self._alarms[0][0] <= now_s:
            due_s, uid = heapq.heappop(self._alarms)
            if self._due_s.get(uid) == due_s:
                self._stale[uid] = None
        for uid in self._stale:
            self._drop(uid)
            pod = pods.get(uid)
            if pod is not None:
                self._plan(pod, node, now_s)
        self._stale.clear()

    def _drop(self, uid: str) -> None:
        self._due_s.pop(uid, None)
        match self._steps.pop(uid, None):
            case plan.AddToZtunnel(_, ztunnel):
                _take_out(self._adds, ztunnel, uid)
            case plan.DeleteFromZtunnel(_, ztunnel):
                _take_out(self._deletes, ztunnel, uid)
            case plan.CapturePod() | plan.SetDirect() | plan.Release() | plan.Forget():
                del self._kernel[uid]

    def _plan(self, pod: PodFacts, node: NodeFacts, now_s: float) -> None:
        left = plan.steps(pod, node, now_s)
        due_s = plan.due_s(pod, left, now_s)
        if due_s is not None:
            self._due_s[pod.uid] = due_s
            heapq.heappush(self._alarms, (due_s, pod.uid))
        if not left:
            return
        step = self._steps[pod.uid] = left[0]
        match step:
            case plan.AddToZtunnel(uid, ztunnel):
                self._adds.setdefault(ztunnel, {})[uid] = step
            case plan.DeleteFromZtunnel(uid, ztunnel):
                self._deletes.setdefault(ztunnel, {})[uid] = step
            case plan.CapturePod() | plan.SetDirect() | plan.Release() | plan.Forget():
                self._kernel[pod.uid] = step

    # As of the last refresh

    def steps(self) -> Iterator[Step]:
        return iter(list(self._steps.values()))

    def kernel_steps(self) -> list[Step]:
        return list(self._kernel.values())

    def ztunnel_step(self, ztunnel: int, but: Collection[str] = ()) -> ZtunnelStep | None:
        """One step for that ztunnel, of a pod that is none of `but`; pods that leave go first."""
        for track in (self._deletes, self._adds):
            for uid, step in track.get(ztunnel, {}).items():
                if uid not in but:
                    return step
        return None

    def next_due_s(self) -> float | None:
        """The time of the next alarm; None: nothing waits."""
        while self._alarms and self._due_s.get(self._alarms[0][1]) != self._alarms[0][0]:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None


def _take_out(tracks: dict[int, dict[str, ZtunnelStep]], ztunnel: int, uid: str) -> None:
    """Drop a step, and the track with its last step: ztunnel numbers are never used again."""
    track = tracks[ztunnel]
    del track[uid]
    if not track:
        del tracks[ztunnel]
