"""Facts about a pair of pods are found anew whenever the answer could have changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from control.model.policy import Action, Policy, PolicyScope, Rule
from control.wire.direct_flows import OpenedFlow, read_opened
from tests.support.engine.direct_rig import CLIENT, SERVER, Rig
from ztunnel.direct.pairs import PAIRS_MAX, PodPairs
from ztunnel.mesh.authorize import Admit, Refusal
from ztunnel.telemetry.parties import Reporter

FLOW = {
    "id": 5,
    "source": "uid-client",
    "destination": "uid-server",
    "client": "10.0.0.1:40000",
    "target": "10.0.0.2:8080",
    "original": "10.1.0.1:80",
    "age_s": 0.5,
}
DENY_ALL = Policy("no", "shop", PolicyScope.NAMESPACE, Action.ALLOW)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def flow(**fields: Any) -> OpenedFlow:
    return read_opened({**FLOW, **fields})


def test_connections_that_differ_in_the_clients_port_share_a_pair(rig: Rig) -> None:
    pairs = PodPairs(rig.engine)
    first = pairs.of(flow())
    assert first is not None
    assert pairs.of(flow(client="10.0.0.1:40001", id=6)) is first
    for other in (
        {"client": "[fd00::1]:40000"},
        {"target": "10.0.0.2:81"},
        {"original": "10.0.0.2:8080"},
    ):
        assert pairs.of(flow(**other)) is not first
    one, two = (first.parties(flow(client=f"10.0.0.1:{n}"), Reporter.SOURCE) for n in (1, 2))
    assert one.memo is two.memo
    assert (one.source_address.port, two.source_address.port) == (1, 2)
    assert first.parties(flow(), Reporter.DESTINATION).memo is not one.memo
    assert one.tenant is first.source.tenant, "its lines and label sets have a payer"


def test_a_changed_policy_or_workload_is_another_answer(rig: Rig) -> None:
    pairs = PodPairs(rig.engine)
    state = rig.engine.state

    def answer() -> object:
        pair = pairs.of(flow())
        assert pair is not None
        return pair.ask(state, flow())

    assert isinstance(answer(), Admit)
    rig.change(DENY_ALL)
    assert isinstance(answer(), Refusal)
    rig.change(replace(DENY_ALL, rules=(Rule(),)))
    assert isinstance(answer(), Admit)
    rig.change(replace(SERVER, namespace="elsewhere"))
    assert answer() is None
    rig.change(SERVER, replace(CLIENT, canonical_revision="v2"))
    pair = pairs.of(flow())
    assert pair is not None
    assert pair.client is not None
    assert pair.client.canonical_revision == "v2"


def test_a_pod_that_came_again_is_another_pod(rig: Rig) -> None:
    pairs = PodPairs(rig.engine)
    first = pairs.of(flow())
    rig.engine.remove_pod("uid-server")
    assert pairs.of(flow()) is None
    again = rig.add(SERVER)
    second = pairs.of(flow())
    assert second is not None
    assert second is not first
    assert second.destination is again


def test_pairs_are_bounded(rig: Rig) -> None:
    pairs = PodPairs(rig.engine)
    for port in range(1, PAIRS_MAX + 10):
        assert pairs.of(flow(target=f"10.0.0.2:{port}")) is not None
    assert len(pairs._known) <= PAIRS_MAX
