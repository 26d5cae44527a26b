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
        self._believed: set[str] = set()
        self._unheard: set[str] = set()
        self._announcing: set[str] = set()
        self._announced: set[str] = set()
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
        self._keep_report(pod.uid, after)
        is_reported = after is not None and pod.uid in self._reportable
        is_believed = after is not None and after.hbone
        _keep(self._believed, pod.uid, is_believed)
        _keep(self._unheard, pod.uid, is_reported and not is_believed)
        is_ahead = after is not None and after.capture is None and after.announced_s is None
        _keep(self._announcing, pod.uid, is_reported and is_ahead)
        _keep(self._announced, pod.uid, after is not None and after.announced_s is not None)

    def _keep_report(self, uid: str, pod: PodFacts | None) -> None:
        addresses = None if pod is None else plan.reportable(pod)
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
    def believed(self) -> AbstractSet[str]:
        """Pods that the control plane may tell peers to reach by HBONE."""
        return self._believed

    @property
    def unheard(self) -> AbstractSet[str]:
        """Pods to report of which it has heard nothing yet, or that they are not captured."""
        return self._unheard

    @property
    def announcing(self) -> AbstractSet[str]:
        """Pods that are reported before their capture, which the control plane has not accepted."""
        return self._announcing

    @property
    def announced(self) -> AbstractSet[str]:
        """Those of which it has accepted that before their capture."""
        return self._announced


def _keep(members: set[str], uid: str, wanted: bool) -> bool:
    """Put it in or take it out; True when that changed anything."""
    if (uid in members) is wanted:
        return False
    (members.add if wanted else members.discard)(uid)
    return True
