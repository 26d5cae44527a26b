"""Conditions on policies at the API server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.server.leader.conditions import ACCEPTED, ATTACHED, Conditions, PolicyCondition
from control.server.leader.ledger import Target
from control.server.leader.statuses import StatusDuty
from tests.support.clock import FakeClock
from tests.support.kube.client import with_client
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import Json

VALUE: Conditions = (
    PolicyCondition(ACCEPTED, True, "Accepted", "", 1),
    PolicyCondition(ATTACHED, True, "Attached", "applies to 2 workloads in the mesh"),
)
GROUP = "security.istio.io/v1"


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace("shop")
        server.install_istio_kinds()
        yield server


def put(kube: KubeServer, **status: object) -> Target:
    metadata = {"name": "p", "namespace": "shop"}
    value: Json = {"apiVersion": GROUP, "kind": "AuthorizationPolicy", "metadata": metadata}
    kube.put({**value, "spec": {}, **({"status": status} if status else {})})
    return Target("AuthorizationPolicy", "shop", "p", policy(kube)["metadata"]["uid"])


def policy(kube: KubeServer) -> Json:
    found = kube.get(GROUP, "AuthorizationPolicy", "p", "shop")
    assert found is not None
    return found


def write(kube: KubeServer, clock: FakeClock, target: Target, *values: Conditions) -> None:
    async def act(client: KubeClient) -> None:
        duty = StatusDuty(client, clock, dict)
        await duty.look()
        for value in values:
            await duty.write(target, value)
            clock.pass_s(60)

    with_client(kube, act)


def shown(kube: KubeServer) -> dict[str, tuple[str, str]]:
    """Type → status and since when."""
    conditions = policy(kube)["status"]["conditions"]
    return {each["type"]: (each["status"], each["lastTransitionTime"]) for each in conditions}


def test_what_was_written_is_what_is_seen(kube: KubeServer) -> None:
    target = put(kube)
    write(kube, FakeClock(), target, VALUE)

    async def look(client: KubeClient) -> None:
        assert await StatusDuty(client, FakeClock(), dict).look() == {target: VALUE}

    with_client(kube, look)
    assert policy(kube)["metadata"]["generation"] == 1


def test_a_state_keeps_its_begin_while_it_is_the_same(kube: KubeServer) -> None:
    target, clock = put(kube), FakeClock()
    more = (VALUE[0], PolicyCondition(ATTACHED, True, "Attached", "applies to 3 workloads"))
    none = (VALUE[0], PolicyCondition(ATTACHED, False, "NoWorkloads", "applies to 0 workloads"))
    write(kube, clock, target, VALUE, more)
    assert set(shown(kube).values()) == {("True", "2026-01-01T00:00:00Z")}
    write(kube, clock, target, none)
    assert shown(kube)[ACCEPTED] == ("True", "2026-01-01T00:00:00Z")
    assert shown(kube)[ATTACHED] == ("False", "2026-01-01T00:02:00Z")
    assert clock.now() - FakeClock().now() == timedelta(minutes=3)


def test_conditions_of_others_stay(kube: KubeServer) -> None:
    theirs = {"type": "WaypointAccepted", "status": "True", "lastTransitionTime": "x"}
    target = put(kube, conditions=[theirs])
    write(kube, FakeClock(), target, VALUE)
    assert set(shown(kube)) == {"WaypointAccepted", ACCEPTED, ATTACHED}


def test_ours_that_another_manager_holds_are_a_refusal(kube: KubeServer) -> None:
    theirs = {"type": ACCEPTED, "status": "False", "reason": "TheirWords", "message": "no"}
    target = put(kube, conditions=[theirs])
    with pytest.raises(ApiError) as caught:
        write(kube, FakeClock(), target, VALUE)
    assert caught.value.is_conflict
    assert shown_reason(kube) == "TheirWords"


def shown_reason(kube: KubeServer) -> str:
    return str(policy(kube)["status"]["conditions"][0]["reason"])


def test_a_policy_that_went_or_was_made_anew_is_left_alone(kube: KubeServer) -> None:
    target = put(kube)
    kube.remove(GROUP, "AuthorizationPolicy", "p", "shop")
    write(kube, FakeClock(), target, VALUE)
    assert kube.get(GROUP, "AuthorizationPolicy", "p", "shop") is None


def test_kinds_that_are_not_installed_have_no_policies(kube: KubeServer) -> None:
    for name in ("authorizationpolicies", "peerauthentications"):
        kind = "CustomResourceDefinition"
        kube.remove("apiextensions.k8s.io/v1", kind, f"{name}.security.istio.io")

    async def look(client: KubeClient) -> None:
        assert await StatusDuty(client, FakeClock(), dict).look() == {}

    with_client(kube, look)
