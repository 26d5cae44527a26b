"""Tells of pods whose workloads name policies that the control plane has not sent: their new
connections are refused. Decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Protocol

from control.kit.log import event
from ztunnel.mesh.state import State

log = logging.getLogger("policy")

LINES_MAX: Final = 10  # one look writes; a namespace that is STRICT can be a hundred pods
NAMES_MAX: Final = 16  # shown of one pod


class ServedName(Protocol):
    @property
    def uid(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def service_account(self) -> str: ...


def missing_policies(state: State, pod: ServedName) -> tuple[str, ...]:
    """Names that are missing for a pod, the first few."""
    workload = state.local_workload(pod.namespace, pod.name, pod.service_account)
    if workload is None or not state.synced:
        return ()
    return state.missing_policies(workload)[:NAMES_MAX]


class MissingWatch:
    """Writes a line when names of a pod are missing, and one when they no longer are."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, ...]] = {}  # by pod

    def look(self, state: State, pods: Iterable[ServedName]) -> None:
        """A pod that is left out now has its line at a later look."""
        found = [(pod, missing_policies(state, pod)) for pod in pods]
        news = [each for each in found if each[1] != self._told.get(each[0].uid, ())]
        self._told = {pod.uid: self._told[pod.uid] for pod, _ in found if pod.uid in self._told}
        for pod, names in news[:LINES_MAX]:
            if names:
                self._told[pod.uid] = names
            else:
                del self._told[pod.uid]
            level = logging.WARNING if names else logging.INFO
            what = "policy.missing" if names else "policy.arrived"
            event(log, level, what, pod=f"{pod.namespace}/{pod.name}", policies=",".join(names))
        if len(news) > LINES_MAX:
            event(log, logging.WARNING, "policy.missing", left_out=len(news) - LINES_MAX)
