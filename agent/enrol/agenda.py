"""The next step of every pod, sorted by who takes it; plans anew only the pods that changed.

A node has hundreds of pods and each has a handful of steps: planning all of them after every step
costs the square of their number. What a plan depends on is the pod's facts, the ztunnels and the
clock; the book says when the first two change, and a pod that waits says itself until when.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

from agent.enrol import plan
from agent.enrol.plan import Node, Pod, Step

TunnelStep = plan.AddToTunnel | plan.DeleteFromTunnel


class Agenda:
    def __init__(self) -> None:
        self._stale: dict[str, None] = {}  # in the order in which they changed
        self._steps: dict[str, Step] = {}
        self._kernel: dict[str, Step] = {}
        self._adds: dict[int, dict[str, TunnelStep]] = {}  # ztunnel → uid → step
        self._deletes: dict[int, dict[str, TunnelStep]] = {}
        self._due_s: dict[str, float] = {}
        self._alarms: list[tuple[float, str]] = []  # a heap; void when _due_s says another time

    def changed(self, uids: Iterable[str]) -> None:
        self._stale.update(dict.fromkeys(uids))

    def refresh(self, pods: Mapping[str, Pod], node: Node, now_s: float) -> None:
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
            case plan.AddToTunnel(_, tunnel):
                _take_out(self._adds, tunnel, uid)
            case plan.DeleteFromTunnel(_, tunnel):
                _take_out(self._deletes, tunnel, uid)
            case plan.CapturePod() | plan.SetDirect() | plan.Release() | plan.Forget():
                del self._kernel[uid]

    def _plan(self, pod: Pod, node: Node, now_s: float) -> None:
        due_s = plan.due_s(pod, node, now_s)
        if due_s is not None:
            self._due_s[pod.uid] = due_s
            heapq.heappush(self._alarms, (due_s, pod.uid))
        left = plan.steps(pod, node, now_s)
        if not left:
            return
        step = self._steps[pod.uid] = left[0]
        match step:
            case plan.AddToTunnel(uid, tunnel):
                self._adds.setdefault(tunnel, {})[uid] = step
            case plan.DeleteFromTunnel(uid, tunnel):
                self._deletes.setdefault(tunnel, {})[uid] = step
            case plan.CapturePod() | plan.SetDirect() | plan.Release() | plan.Forget():
                self._kernel[pod.uid] = step

    # As of the last refresh

    def steps(self) -> Iterator[Step]:
        return iter(list(self._steps.values()))

    def kernel_steps(self) -> list[Step]:
        return list(self._kernel.values())

    def tunnel_step(self, tunnel: int) -> TunnelStep | None:
        """Who leaves goes first."""
        for lane in (self._deletes, self._adds):
            for step in lane.get(tunnel, {}).values():
                return step
        return None

    def next_due_s(self) -> float | None:
        while self._alarms and self._due_s.get(self._alarms[0][1]) != self._alarms[0][0]:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None


def _take_out(lanes: dict[int, dict[str, TunnelStep]], tunnel: int, uid: str) -> None:
    """The lane goes with its last step: numbers of ztunnels are never used again."""
    lane = lanes[tunnel]
    del lane[uid]
    if not lane:
        del lanes[tunnel]
