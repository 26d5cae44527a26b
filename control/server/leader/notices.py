"""Events on policies that are refused, so that `kubectl describe` shows what is wrong.

One event for an object and what is wrong with it, whoever leads and however often it starts: its
name is made from both. Events end after an hour at the API server and are not made again, unless
the lead changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from control.kit.clock import Clock
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import Resource
from control.server.leader.conditions import ACCEPTED, Conditions
from control.server.leader.ledger import Target, WriteLedger
from control.server.leader.statuses import RESOURCES

NEW_EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
CONTROLLER: Final = "tulle.io/control"
NOTE_BYTES_MAX: Final = 1024  # the API's bound; it calls them characters
NOTICES_MAX: Final = 500  # at one time: an operator reads the first ones


@dataclass(frozen=True, slots=True)
class Notice:
    reason: str
    note: str


class NoticeDuty:
    """`conditions` are those of every policy now."""

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        identity: str,
        conditions: Callable[[], Mapping[Target, Conditions]],
    ) -> None:
        self.ledger: WriteLedger[Notice] = WriteLedger(removes=True)
        self._client = client
        self._clock = clock
        self._identity = identity
        self._conditions = conditions

    def wanted(self) -> Mapping[Target, Notice]:
        found: dict[Target, Notice] = {}
        for target, conditions in self._conditions().items():
            for each in conditions:
                if each.type == ACCEPTED and not each.is_true:
                    found[target] = Notice(each.reason, _cut(each.message))
            if len(found) == NOTICES_MAX:
                break
        return found

    async def look(self) -> Mapping[Target, Notice]:
        return {}  # a name that is there is as good as one that was made now

    async def write(self, target: Target, value: Notice | None) -> None:
        if value is None:
            return  # what was said is not taken back: it ends by itself
        resource = RESOURCES[target.kind]
        text = f"{target.uid} {value.reason} {value.note}"
        mark = hashlib.sha256(text.encode()).hexdigest()[:16]
        body: dict[str, Any] = {
            "apiVersion": NEW_EVENTS.api_version,
            "kind": NEW_EVENTS.kind,
            "metadata": {
                "name": f"{target.name[:200].rstrip('-.')}.{mark}",
                "namespace": target.namespace,
            },
            "eventTime": self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._identity[:128],
            "action": "Validate",
            "reason": value.reason,
            "note": value.note or value.reason,
            "type": "Warning",
            "regarding": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "namespace": target.namespace,
                "name": target.name,
                "uid": target.uid,
            },
        }
        try:
            await self._client.create(NEW_EVENTS.path(target.namespace), body, msgspec.Raw)
        except ApiError as exc:
            if exc.kind != "AlreadyExists":
                raise


def _cut(text: str) -> str:
    return text.encode()[:NOTE_BYTES_MAX].decode(errors="ignore")
