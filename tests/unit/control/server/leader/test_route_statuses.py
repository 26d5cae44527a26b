"""Conditions of routes at the API server, beside those of other controllers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from control.kube.client import KubeClient
from control.server.gateway.statuses import RESOLVED, TAKEN, RouteVerdict
from control.server.leader.ledger import Target
from control.server.leader.route_statuses import (
    CONTROLLER,
    ParentState,
    ParentStates,
    RouteStatusDuty,
    wanted_states,
)
from control.server.sources.route_specs import ParentRef, TargetRef
from tests.support.clock import FakeClock
from tests.support.gateways import Bench, gateway, route, service
from tests.support.kube.client import with_client
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import Json

GROUP = "gateway.networking.k8s.io/v1"
WEB = ParentRef(TargetRef("", "Service", "shop", "web"))
FAR = ParentRef(TargetRef("", "Service", "other", "web"), "http", 80)
VALUE = (
    ParentState(WEB, TAKEN, RESOLVED, 1),
    ParentState(FAR, RouteVerdict(False, "Pending", "why"), RESOLVED, 1),
)
OTHERS: Json = {
    "parentRef": {"name": "gate"},
    "controllerName": "example.org/gate",
    "conditions": [],
}


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace("shop")
        server.install_gateway_kinds()
        yield server


def put(kube: KubeServer, *parents: Json) -> Target:
    metadata = {"name": "r", "namespace": "shop"}
    value: Json = {"apiVersion": GROUP, "kind": "HTTPRoute", "metadata": metadata, "spec": {}}
    kube.put({**value, **({"status": {"parents": list(parents)}} if parents else {})})
    return Target("HTTPRoute", "shop", "r", found(kube)["metadata"]["uid"])


def found(kube: KubeServer) -> Json:
    value = kube.get(GROUP, "HTTPRoute", "r", "shop")
    assert value is not None
    return value


def parents(kube: KubeServer) -> list[Any]:
    return list(found(kube)["status"]["parents"])


def act(kube: KubeServer, clock: FakeClock, *steps: tuple[Target, ParentStates | None]) -> Any:
    seen: list[Any] = []

    async def run(client: KubeClient) -> None:
        duty = RouteStatusDuty(client, clock, dict)
        for target, value in steps:
            await duty.write(target, value)
            clock.pass_s(60)
        seen.append(await duty.look())

    with_client(kube, run)
    return seen[0]


def test_what_was_written_is_what_is_seen(kube: KubeServer) -> None:
    target = put(kube)
    assert act(kube, FakeClock(), (target, VALUE)) == {target: VALUE}
    mine, far = parents(kube)
    assert mine["parentRef"] == {"group": "", "kind": "Service", "name": "web"}
    assert mine["controllerName"] == CONTROLLER
    assert far["parentRef"] == {
        "group": "",
        "kind": "Service",
        "name": "web",
        "namespace": "other",
        "sectionName": "http",
        "port": 80,
    }


def test_entries_of_others_stay_as_they_are(kube: KubeServer) -> None:
    target = put(kube, OTHERS)
    assert act(kube, FakeClock(), (target, VALUE), (target, None)) == {}
    assert parents(kube) == [OTHERS]


def test_a_condition_keeps_the_time_of_its_begin(kube: KubeServer) -> None:
    target, clock = put(kube), FakeClock()
    act(kube, clock, (target, VALUE))
    (before, _) = parents(kube)
    later = (ParentState(WEB, TAKEN, RouteVerdict(False, "BackendNotFound", "x"), 2),)
    act(kube, clock, (target, later))
    (after,) = parents(kube)
    since = [
        {one["type"]: one["lastTransitionTime"] for one in each["conditions"]}
        for each in (before, after)
    ]
    assert since[0]["Accepted"] == since[1]["Accepted"]
    assert since[0]["ResolvedRefs"] < since[1]["ResolvedRefs"]


def test_a_route_that_has_gone_or_is_another_is_left_alone(kube: KubeServer) -> None:
    target = put(kube)
    act(kube, FakeClock(), (Target("HTTPRoute", "shop", "r", "another"), VALUE))
    assert "status" not in found(kube)
    kube.remove(GROUP, "HTTPRoute", "r", "shop")
    assert act(kube, FakeClock(), (target, VALUE)) == {}


def test_no_kind_no_routes() -> None:
    with serving() as server:
        assert act(server, FakeClock()) == {}


def test_wanted_is_what_became_of_routes_and_a_refused_text_says_so() -> None:
    bench = Bench(gateway() + service("web") + route("rules: [{}]"))
    ((target, (state,)),) = wanted_states(bench.gateways.statuses, {}).items()
    assert (target.kind, target.name) == ("HTTPRoute", "route")
    assert (state.accepted.reason, state.resolved) == ("Pending", RESOLVED)
    broken = {"HTTPRoute shop/route": ["unknown field x"]}
    ((_, (state,)),) = wanted_states(bench.gateways.statuses, broken).items()
    assert state.accepted == RouteVerdict(False, "Invalid", "unknown field x")
