"""Writes conditions into the status of policies, by server-side apply under our own name.

Conditions of others stay: ours are merged by type. Where another manager owns the list as a whole
(definitions of Istio's without a key for it), theirs stays and ours are told in the log once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from control.kit.clock import Clock
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS, Resource
from control.server.leader.conditions import ACCEPTED, ATTACHED, Conditions, PolicyCondition
from control.server.leader.ledger import Target, WriteLedger

MANAGER: Final = "tulle-control"
PAGE: Final = "500"
Item = TypeVar("Item")
RESOURCES: Final = {each.kind: each for each in (AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS)}


class SeenCondition(msgspec.Struct, rename="camel"):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0

    @property
    def value(self) -> PolicyCondition:
        is_true = self.status == "True"
        return PolicyCondition(
            self.type, is_true, self.reason, self.message, self.observed_generation
        )


class SeenMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class SeenStatus(msgspec.Struct):
    conditions: list[SeenCondition] | None = None


class SeenPolicy(msgspec.Struct):
    metadata: SeenMeta
    status: SeenStatus | None = None


class SeenPage(msgspec.Struct, Generic[Item]):
    metadata: SeenMeta
    items: list[Item] | None = None


async def read_all(
    client: KubeClient, resource: Resource, page_type: type[SeenPage[Item]]
) -> list[Item]:
    """All objects of a kind, in pages; none when it is not installed. Raises ApiError."""
    found: list[Item] = []
    parameters = {"limit": PAGE}
    while True:
        try:
            page = await client.get(resource.path(), page_type, parameters)
        except ApiError as exc:
            if exc.code == 404:
                return []
            raise
        found += page.items or []
        if not page.metadata.continue_:
            return found
        parameters = {"limit": PAGE, "continue": page.metadata.continue_}


class StatusDuty:
    """`wanted` gives the conditions of every policy, from the state of now."""

    def __init__(
        self, client: KubeClient, clock: Clock, wanted: Callable[[], Mapping[Target, Conditions]]
    ) -> None:
        self.ledger: WriteLedger[Conditions] = WriteLedger(removes=False)
        self.wanted = wanted
        self._client = client
        self._clock = clock
        self._since: dict[tuple[Target, str], tuple[bool, str]] = {}

    async def look(self) -> Mapping[Target, Conditions]:
        found: dict[Target, Conditions] = {}
        self._since.clear()
        for kind, resource in RESOURCES.items():
            for each in await read_all(self._client, resource, SeenPage[SeenPolicy]):
                meta = each.metadata
                target = Target(kind, meta.namespace, meta.name, meta.uid)
                seen = (each.status or SeenStatus()).conditions or []
                for one in seen:
                    since = (one.status == "True", one.last_transition_time)
                    self._since[target, one.type] = since
                ours = {one.type: one.value for one in seen}
                if ACCEPTED in ours and ATTACHED in ours:
                    found[target] = (ours[ACCEPTED], ours[ATTACHED])
        return found

    async def write(self, target: Target, value: Conditions | None) -> None:
        if value is None:
            return
        resource = RESOURCES[target.kind]
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        since = {each.type: self._started(target, each, now) for each in value}
        body: dict[str, Any] = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": target.name, "namespace": target.namespace, "uid": target.uid},
            "status": {"conditions": [_body(each, since[each.type]) for each in value]},
        }
        path = resource.path(target.namespace, target.name, "status")
        try:
            await self._client.apply(path, body, SeenPolicy, manager=MANAGER)
        except ApiError as exc:
            if exc.code == 404 or (exc.is_conflict and not exc.causes):
                return  # it is gone, and its news has not come yet
            raise
        for each in value:
            self._since[target, each.type] = (each.is_true, since[each.type])

    def _started(self, target: Target, condition: PolicyCondition, now: str) -> str:
        """Begin of a condition's state: the one that is there, while it is the same."""
        known = self._since.get((target, condition.type))
        if known is not None and known[0] == condition.is_true and known[1]:
            return known[1]
        return now


def _body(condition: PolicyCondition, since: str) -> dict[str, Any]:
    about = {"observedGeneration": condition.generation} if condition.generation else {}
    return {
        **about,
        "type": condition.type,
        "status": "True" if condition.is_true else "False",
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": since,
    }
