"""Connections of a pod that the control plane has not told of yet: they wait for it.

A pod starts as soon as it is captured. Its workload may come a moment later, from a control plane
that has just heard of the capture; what the pod dials meanwhile, and what dials it, must not fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from control.model.workload import Workload
from ztunnel.connections.pod import Pod
from ztunnel.loop.reactor import Reactor
from ztunnel.mesh.state import State

WORKLOAD_S: Final = 5.0  # as long as Istio's ztunnel waits
WAITING_MAX: Final = 64  # connections of one pod, and as many to it; more are refused at once

Begin = Callable[[Workload], None]


class Newcomer:
    """One connection that waits. It ends in `begin` or in `give_up`."""

    __slots__ = ("begin", "give_up", "pod")

    def __init__(self, pod: Pod, begin: Begin, give_up: Callable[[], None]) -> None:
        self.pod = pod
        self.begin = begin
        self.give_up = give_up

    def on_bug(self) -> None:
        self.give_up()


class Newcomers:
    """All that wait in a worker, by pod."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._waiting: dict[Pod, list[Newcomer]] = {}
        self._late: Final = reactor.countdown(WORKLOAD_S, self._give_up)

    def __len__(self) -> int:
        return len(self._late)

    def wait(self, pod: Pod, begin: Begin, give_up: Callable[[], None]) -> bool:
        """`begin` the connection once the pod's workload is known. False: too many wait."""
        waiting = self._waiting.setdefault(pod, [])
        if len(waiting) >= WAITING_MAX:
            return False
        item = Newcomer(pod, begin, give_up)
        waiting.append(item)
        self._late.start(item)
        return True

    def told(self, state: State) -> None:
        """Workloads have come: begin the connections of their pods."""
        for pod in list(self._waiting):
            workload = pod.workload(state)
            if workload is not None:
                for each in self._taken(pod):
                    self._reactor.serve(each, each.begin, workload)

    def leave(self, pod: Pod) -> None:
        """The pod is going away."""
        for each in self._taken(pod):
            self._reactor.serve(each, each.give_up)

    def _taken(self, pod: Pod) -> list[Newcomer]:
        found = self._waiting.pop(pod, [])
        for each in found:
            self._late.stop(each)
        return found

    def _give_up(self, item: Newcomer) -> None:
        waiting = self._waiting[item.pod]
        waiting.remove(item)
        if not waiting:
            del self._waiting[item.pod]
        item.give_up()
