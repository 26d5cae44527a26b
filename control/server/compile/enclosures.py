"""Pods that only their waypoints may reach. Pure.

Layer 7 decides at the waypoint: whoever dials a pod without it would never meet those policies. So
such a pod has a policy of layer 4 that denies all but the identities of its waypoints.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from control.model.policy import (
    Action,
    Clause,
    Match,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
)
from control.model.route import WaypointKey
from control.server.compile.settings import Settings
from control.server.compile.table import ResourceTable
from control.server.compile.waypoint_labels import account_of
from control.server.sources.objects import Key

# No name of an object has an underscore.
ENCLOSURE_PREFIX = "only_by_waypoint_"  # namespace and name follow
SEVERAL_PREFIX = "only_by_waypoints_"  # a word for all of them follows


class Enclosures:
    """Policies that some pod has; put into `policies`, and taken out after the last one."""

    def __init__(self, settings: Settings, policies: ResourceTable[Policy]) -> None:
        self._settings = settings
        self._policies = policies
        self._names: dict[Key, str] = {}  # by pod
        self._pods: Counter[str] = Counter()

    def put(self, pod: Key, waypoints: Iterable[WaypointKey]) -> str:
        """Name of the pod's policy; empty if it stands behind no waypoint."""
        before = self._names.pop(pod, "")
        several = sorted(set(waypoints))
        name = ""
        if several:
            policy = enclosure(several, self._settings)
            name = self._names[pod] = policy.key
            self._pods[name] += 1
            self._policies.put(name, policy)
        if before:
            self._pods[before] -= 1
            if not self._pods[before]:
                del self._pods[before]
                self._policies.put(before, None)
        return name


def enclosure(waypoints: list[WaypointKey], settings: Settings) -> Policy:
    """Waypoints in one order."""
    accounts = [account_of(each, settings).principal for each in waypoints]
    names = tuple(StringMatch(StringMatchKind.EXACT, each) for each in accounts)
    rule = Rule((Clause((Match(not_principals=names),)),))
    return Policy(
        name=_name(waypoints),
        namespace=settings.root_namespace,
        scope=PolicyScope.WORKLOAD_SELECTOR,
        action=Action.DENY,
        rules=(rule,),
    )


def _name(waypoints: list[WaypointKey]) -> str:
    if len(waypoints) == 1:
        return f"{ENCLOSURE_PREFIX}{waypoints[0].namespace}_{waypoints[0].name}"
    text = " ".join(map(str, waypoints))
    return SEVERAL_PREFIX + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
