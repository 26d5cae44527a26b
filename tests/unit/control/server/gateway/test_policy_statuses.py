"""Words for people about a policy with targets."""

from __future__ import annotations

import pytest

from control.server.compile.policies import PolicyStatus
from control.server.sources.objects import Key
from tests.support.gateways import Bench, gateway, service
from tests.support.manifests import load, policy

WEB = gateway() + service("web", labels="istio.io/use-waypoint: way") + service("db")
GROUP = "gateway.networking.k8s.io"


def status(bench: Bench) -> PolicyStatus:
    return bench.gateways.policy_statuses[Key("AuthorizationPolicy", "shop", "p")]


@pytest.mark.parametrize(
    ("targets", "delivered", "reason"),
    [
        ("{kind: Service, name: web}", True, "Accepted"),
        ("{kind: Service, name: db}", False, "Unmatched"),
        ("{kind: Service, name: gone}", False, "Unmatched"),
        ("{kind: Service, name: web}, {kind: Service, name: db}", True, "Unmatched"),
        (f"{{group: {GROUP}, kind: Gateway, name: way}}", True, "Accepted"),
        (f"{{group: {GROUP}, kind: Gateway, name: gone}}", False, "Unmatched"),
        (f"{{group: {GROUP}, kind: GatewayClass, name: tulle-waypoint}}", False, "Unmatched"),
        ("{group: networking.istio.io, kind: ServiceEntry, name: x}", False, "Unmatched"),
    ],
)
def test_a_policy_is_delivered_where_a_waypoint_serves_a_target(
    targets: str, delivered: bool, reason: str
) -> None:
    found = status(Bench(WEB + policy(f"{{targetRefs: [{targets}], rules: [{{}}]}}")))
    assert (found.delivered, found.reason, found.scope) == (delivered, reason, "TARGETS")
    assert bool(found.notes) == (reason != "Accepted")


def test_fields_that_cannot_be_checked_are_told() -> None:
    rules = "rules: [{when: [{key: remote.ip, values: [10.0.0.1]}]}]"
    found = status(Bench(WEB + policy(f"{{targetRefs: [{{kind: Service, name: web}}], {rules}}}")))
    assert (found.delivered, found.reason) == (True, "UnsupportedValue")
    assert "remote.ip" in found.notes[0]


def test_a_policy_without_effect_is_not_delivered() -> None:
    text = "{targetRefs: [{kind: Service, name: web}], action: AUDIT}"
    assert not status(Bench(WEB + policy(text))).delivered


def test_a_broken_one_closes_its_targets_and_says_so() -> None:
    bench = Bench(WEB)
    text = policy("{targetRefs: [{kind: Service, name: web}], rulez: []}")
    bench.change(dict(load(text).objects.by_key()))
    found = status(bench)
    assert (found.delivered, found.reason) == (True, "Broken")
    assert bench.front().policies


def test_policies_of_layer_4_are_not_among_them() -> None:
    assert Bench(WEB + policy("{}")).gateways.policy_statuses == {}
