"""Lookups over the facts of all pods, kept up to date by each change; decides nothing."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from agent.enrol import plan
from agent.enrol.plan import PodFacts


class PodIndex:
    """Tells, without a walk over all pods, who lives in a namespace and who is to be reported."""

    def __init__(self) -> None:
        self._tenants: dict[int, str] = {}  # namespace → uid
        self._captured: set[str] = set()
        self._withdrawn: set[str] = set()
        self._reportable: set[str] = set()
        self._report: frozenset[str] | None = frozenset()  # _reportable; None: out of date

    def changed(self, before: PodFacts | None, after: PodFacts | None) -> None:
        """Follow one pod from its old facts (None: it is new) to its new ones (None: forgotten)."""
        pod = after or before
        assert pod is not None
        if before is not None and before.netns is not None:
            has_moved = after is None or after.netns != before.netns
            if has_moved and self._tenants.get(before.netns) == pod.uid:
                del self._tenants[before.netns]
        if after is not None and after.netns is not None:
            self._tenants[after.netns] = pod.uid
        is_captured = after is not None and after.capture is not None
        is_withdrawn = after is not None and after.withdrawn_s is not None
        is_reportable = after is not None and plan.reportable(after)
        _keep(self._captured, pod.uid, is_captured)
        _keep(self._withdrawn, pod.uid, is_withdrawn)
        if _keep(self._reportable, pod.uid, is_reportable):
            self._report = None

    def tenant(self, netns: int) -> str | None:
        """The uid that lives in a namespace."""
        return self._tenants.get(netns)

    @property
    def report(self) -> frozenset[str]:
        """Every pod that peers may reach by HBONE."""
        if self._report is None:
            self._report = frozenset(self._reportable)
        return self._report

    @property
    def captured(self) -> AbstractSet[str]:
        return self._captured

    @property
    def withdrawn(self) -> AbstractSet[str]:
        """Captured pods that the control plane does not take for captured."""
        return self._withdrawn


def _keep(members: set[str], uid: str, wanted: bool) -> bool:
    """Put it in or take it out; True when that changed anything."""
    if (uid in members) is wanted:
        return False
    (members.add if wanted else members.discard)(uid)
    return True
