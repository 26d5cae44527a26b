"""Lookups over the facts of all pods, kept up to date by each change; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from agent.enrol import plan
from agent.enrol.plan import PodFacts
from control.model.address import Address


class PodIndex:
    """Tells, without a walk over all pods, who lives in a namespace and who is to be reported."""

    def __init__(self) -> None:
        self._tenants: dict[int, str] = {}  # namespace → uid
        self._captured: set[str] = set()
        self._withdrawn: set[str] = set()
        self._reportable: dict[str, tuple[Address, ...]] = {}
        # A copy of _reportable, one object until it changes; None: out of date.
        self._report: Mapping[str, tuple[Address, ...]] | None = MappingProxyType({})

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
        _keep(self._captured, pod.uid, is_captured)
        _keep(self._withdrawn, pod.uid, is_withdrawn)
        self._keep_report(pod.uid, after)

    def _keep_report(self, uid: str, pod: PodFacts | None) -> None:
        addresses = None
        if pod is not None and pod.capture is not None and plan.reportable(pod):
            addresses = pod.capture.addresses
        if self._reportable.get(uid) == addresses:
            return
        self._report = None
        if addresses is None:
            del self._reportable[uid]
        else:
            self._reportable[uid] = addresses

    def tenant(self, netns: int) -> str | None:
        """The uid that lives in a namespace."""
        return self._tenants.get(netns)

    @property
    def report(self) -> Mapping[str, tuple[Address, ...]]:
        """Every pod that peers may reach by HBONE, and its addresses."""
        if self._report is None:
            self._report = MappingProxyType(dict(self._reportable))
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
