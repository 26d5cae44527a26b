"""Writes what became of routes into their status, one entry for each parent that is ours.

The list has entries of other controllers, and the API server knows it as one value: it is read,
ours are replaced, and it is written back only if nobody has written in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from control.kit.clock import Clock
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import GRPC_ROUTES, HTTP_ROUTES, TCP_ROUTES
from control.server.gateway.statuses import ACCEPTED, RESOLVED_REFS, RouteStatus, RouteVerdict
from control.server.leader.conditions import INVALID, MESSAGE_CHARS_MAX
from control.server.leader.ledger import Target, WriteLedger
from control.server.leader.statuses import SeenCondition, SeenMeta, SeenPage, read_all
from control.server.sources.route_specs import GATEWAY_GROUP, ParentRef, TargetRef

CONTROLLER: Final = "tulle.io/control"
RESOURCES: Final = {each.kind: each for each in (HTTP_ROUTES, GRPC_ROUTES, TCP_ROUTES)}
ATTEMPTS_MAX: Final = 3  # at one write, where somebody else writes as well


@dataclass(frozen=True, slots=True)
class ParentState:
    """Conditions of a route at one parent. `generation`: the text that they are about."""

    parent: ParentRef
    accepted: RouteVerdict
    resolved: RouteVerdict
    generation: int


ParentStates: TypeAlias = tuple[ParentState, ...]


class SeenParentRef(msgspec.Struct, rename="camel"):
    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    namespace: str = ""
    name: str = ""
    section_name: str = ""
    port: int = 0


class SeenParent(msgspec.Struct, rename="camel"):
    parent_ref: SeenParentRef
    controller_name: str = ""
    conditions: list[SeenCondition] | None = None


class SeenRouteStatus(msgspec.Struct):
    parents: list[msgspec.Raw] | None = None


class SeenRoute(msgspec.Struct):
    metadata: SeenMeta
    status: SeenRouteStatus | None = None


def wanted_states(
    statuses: Iterable[RouteStatus], broken: Mapping[str, Sequence[str]]
) -> dict[Target, ParentStates]:
    """By route. `broken`: messages on objects whose last text was refused; an older one is in
    force, and the status is about the last."""
    found: dict[Target, list[ParentState]] = {}
    for each in statuses:
        target = Target(each.route.kind, each.route.namespace, each.route.name, each.uid)
        accepted = each.accepted
        if said := broken.get(str(each.route)):
            accepted = RouteVerdict(False, INVALID, "; ".join(said))
        state = ParentState(each.parent, _short(accepted), _short(each.resolved), each.generation)
        found.setdefault(target, []).append(state)
    return {target: tuple(states) for target, states in found.items()}


def _short(verdict: RouteVerdict) -> RouteVerdict:
    return RouteVerdict(verdict.is_true, verdict.reason, verdict.message[:MESSAGE_CHARS_MAX])


class RouteStatusDuty:
    """`wanted` gives the states of every route at its parents, as of now."""

    def __init__(
        self, client: KubeClient, clock: Clock, wanted: Callable[[], Mapping[Target, ParentStates]]
    ) -> None:
        self.ledger: WriteLedger[ParentStates] = WriteLedger(removes=True)
        self.wanted = wanted
        self._client = client
        self._clock = clock

    async def look(self) -> Mapping[Target, ParentStates]:
        found: dict[Target, ParentStates] = {}
        for kind, resource in RESOURCES.items():
            for each in await read_all(self._client, resource, SeenPage[SeenRoute]):
                meta = each.metadata
                if ours := _ours(each):
                    target = Target(kind, meta.namespace, meta.name, meta.uid)
                    found[target] = tuple(_state(one, meta.namespace) for one in ours)
        return found

    async def write(self, target: Target, value: ParentStates | None) -> None:
        for attempt in range(ATTEMPTS_MAX):
            try:
                await self._write(target, value or ())
                return
            except ApiError as exc:
                if exc.code == 404:
                    return  # it is gone, and its news has not come yet
                if not exc.is_conflict or attempt == ATTEMPTS_MAX - 1:
                    raise

    async def _write(self, target: Target, value: ParentStates) -> None:
        resource = RESOURCES[target.kind]
        path = resource.path(target.namespace, target.name)
        route = await self._client.get(path, SeenRoute)
        if route.metadata.uid != target.uid:
            return  # another one by now
        parents = (route.status and route.status.parents) or []
        before = {_state(each, target.namespace).parent: each for each in _ours(route)}
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        others = [each for each in parents if not _is_ours(each)]
        mine = [_body(each, target.namespace, before.get(each.parent), now) for each in value]
        metadata = {"resourceVersion": route.metadata.resource_version, "uid": target.uid}
        body = {"metadata": metadata, "status": {"parents": [*others, *mine]}}
        await self._client.merge(
            resource.path(target.namespace, target.name, "status"), body, SeenRoute
        )


def _is_ours(parent: msgspec.Raw) -> bool:
    try:
        return msgspec.json.decode(parent, type=SeenParent).controller_name == CONTROLLER
    except msgspec.ValidationError:
        return False  # not of a shape that we write


def _ours(route: SeenRoute) -> list[SeenParent]:
    parents = (route.status and route.status.parents) or []
    return [msgspec.json.decode(each, type=SeenParent) for each in parents if _is_ours(each)]


def _state(parent: SeenParent, namespace: str) -> ParentState:
    ref = parent.parent_ref
    conditions = {each.type: each for each in parent.conditions or ()}
    accepted, resolved = (
        conditions.get(each, SeenCondition()) for each in (ACCEPTED, RESOLVED_REFS)
    )
    return ParentState(
        ParentRef(
            TargetRef(ref.group, ref.kind, ref.namespace or namespace, ref.name),
            ref.section_name,
            ref.port,
        ),
        RouteVerdict(accepted.status == "True", accepted.reason, accepted.message),
        RouteVerdict(resolved.status == "True", resolved.reason, resolved.message),
        accepted.observed_generation,
    )


def _body(
    state: ParentState, namespace: str, before: SeenParent | None, now: str
) -> dict[str, Any]:
    ref = state.parent.ref
    parent: dict[str, Any] = {"group": ref.group, "kind": ref.kind, "name": ref.name}
    if ref.namespace != namespace:
        parent["namespace"] = ref.namespace
    if state.parent.section:
        parent["sectionName"] = state.parent.section
    if state.parent.port:
        parent["port"] = state.parent.port
    known = {each.type: each for each in (before and before.conditions) or ()}
    conditions = [
        _condition(kind, verdict, state.generation, known.get(kind), now)
        for kind, verdict in ((ACCEPTED, state.accepted), (RESOLVED_REFS, state.resolved))
    ]
    return {"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions}


def _condition(
    kind: str, verdict: RouteVerdict, generation: int, before: SeenCondition | None, now: str
) -> dict[str, Any]:
    status = "True" if verdict.is_true else "False"
    is_same = before is not None and before.status == status and before.last_transition_time
    return {
        "type": kind,
        "status": status,
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": generation,
        "lastTransitionTime": before.last_transition_time if before and is_same else now,
    }
