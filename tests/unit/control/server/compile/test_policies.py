"""AuthorizationPolicy → policy: the API cases of the conformance list, by their numbers."""

from __future__ import annotations

from typing import Any

import pytest

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.policy import (
    Action,
    Clause,
    Connection,
    Deny,
    Match,
    Permit,
    Policy,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
    decide,
)
from control.server.compile.mesh import CompiledMesh, compile_mesh
from control.server.compile.policies import PolicyStatus, string_match
from control.server.compile.settings import Settings
from tests.support import manifests
from tests.support.manifests import load, pod, policy


def compiled(spec: str, **kwargs: Any) -> tuple[Policy | None, PolicyStatus]:
    meta = {name: kwargs.pop(name) for name in ("namespace", "annotations") if name in kwargs}
    mesh = manifests.mesh(policy(spec, **meta), **kwargs)
    return next(iter(mesh.policies.values()), None), mesh.statuses[0]


def rules(spec: str) -> tuple[Rule, ...]:
    found, _ = compiled(spec)
    assert found is not None
    return found.rules


def matches(spec: str) -> tuple[Match, ...]:
    ((clause,),) = (list(rule.clauses) for rule in rules(spec))
    return clause.matches_any


def test_40_strings() -> None:
    assert [string_match(each) for each in ["p", "pre-*", "*-suf", "*"]] == [
        StringMatch(StringMatchKind.EXACT, "p"),
        StringMatch(StringMatchKind.PREFIX, "pre-"),
        StringMatch(StringMatchKind.SUFFIX, "-suf"),
        StringMatch(StringMatchKind.PRESENCE),
    ]


def test_41_service_accounts_get_the_policys_namespace() -> None:
    (match,) = matches("{rules: [{from: [{source: {serviceAccounts: [ns/sa, sa-only]}}]}]}")
    assert match.service_accounts == (
        ServiceAccountMatch("ns", "sa"),
        ServiceAccountMatch("shop", "sa-only"),
    )


def test_42_blocks() -> None:
    (match,) = matches("{rules: [{from: [{source: {ipBlocks: [1.2.3.4, 5.6.0.0/16]}}]}]}")
    assert [each.length for each in match.source_ips] == [32, 16]


def test_44_two_operations_are_one_clause() -> None:
    found = matches("{rules: [{to: [{operation: {ports: ['1']}}, {operation: {ports: ['2']}}]}]}")
    assert [each.destination_ports for each in found] == [(1,), (2,)]


@pytest.mark.parametrize(
    ("number", "rule"),
    [
        (45, "from: [{source: {principals: [a], requestPrincipals: [b]}}]"),
        (46, "to: [{operation: {ports: ['80'], methods: [GET]}}]"),
        (47, "to: [{operation: {paths: [/x]}}]"),
        (48, "from: [{source: {principals: [a]}}], when: [{key: remote.ip, values: [1.2.3.4]}]"),
        (48, "from: [{source: {trustDomains: [a]}}]"),
    ],
)
def test_an_allow_rule_beyond_layer_4_is_dropped_whole(number: int, rule: str) -> None:
    kept = "{to: [{operation: {ports: ['5432']}}]}"
    found, status = compiled(f"{{rules: [{{{rule}}}, {kept}]}}")
    assert found is not None
    assert len(found.rules) == 1
    assert status.reason == "UnsupportedValue"
    assert "rules[0]" in status.notes[0]
    assert "the rule is dropped" in status.notes[0]


def test_49_an_allow_with_no_rule_left_denies_all() -> None:
    found, status = compiled("{rules: [{to: [{operation: {methods: [GET]}}]}]}")
    assert found is not None
    assert (found.action, found.rules) == (Action.ALLOW, ())
    assert "everything in its scope is denied" in status.notes[-1]


def test_51_a_deny_keeps_its_layer_4_rest() -> None:
    found, status = compiled(
        "{action: DENY, rules: [{from: [{source: {namespaces: [bad]}}],"
        " to: [{operation: {ports: ['80'], methods: [GET]}}]}]}"
    )
    assert found is not None
    (rule,) = found.rules
    assert rule == Rule(
        (
            Clause((Match(destination_ports=(80,)),)),
            Clause((Match(namespaces=(StringMatch(StringMatchKind.EXACT, "bad"),)),)),
        )
    )
    assert "enforced without" in status.notes[0]


@pytest.mark.parametrize(
    "rule",
    [
        "to: [{operation: {paths: [/x]}}]",
        "to: [{operation: {methods: [GET]}}]",
        "from: [{source: {requestPrincipals: ['*']}}]",
        "from: [{source: {namespaces: [a]}}], when: [{key: connection.sni, values: [a]}]",
    ],
)
def test_52_a_deny_clause_with_nothing_left_never_fires(rule: str) -> None:
    found, status = compiled(f"{{action: DENY, rules: [{{{rule}}}]}}")
    assert found is not None
    assert isinstance(decide([found], CALL), Permit)
    assert "the policy has no effect" in status.notes[-1]


CALL = Connection(
    SpiffeId("cluster.local", "a", "b"), parse_address("10.0.0.1"), parse_address("10.0.0.2"), 80
)


@pytest.mark.parametrize("action", ["CUSTOM", "AUDIT"])
def test_55_custom_and_audit_are_not_delivered(action: str) -> None:
    found, status = compiled(f"{{action: {action}, rules: [{{}}]}}")
    assert found is None
    assert (status.delivered, status.reason) == (False, "UnsupportedValue")


def test_56_target_refs_are_for_waypoints() -> None:
    found, status = compiled("{targetRefs: [{kind: Service, name: x}]}")
    assert found is None
    assert status.reason == "ForWaypoint"


def test_57_dry_run_needs_its_switch() -> None:
    annotations = '{"istio.io/dry-run": "true"}'
    found, status = compiled("{action: DENY, rules: [{}]}", annotations=annotations)
    assert found is None
    assert status.reason == "UnsupportedValue"
    found, _ = compiled(
        "{action: DENY, rules: [{}]}", annotations=annotations, dry_run_policies=True
    )
    assert found is not None
    assert found.dry_run


def test_60_an_empty_rule_allows_all() -> None:
    assert rules("{rules: [{}]}") == (Rule(),)


def test_conditions() -> None:
    spec = (
        "{rules: [{when: [{key: source.principal, values: ['*']},"
        " {key: source.namespace, notValues: [z]}, {key: source.ip, values: [10.0.0.0/8]},"
        " {key: destination.ip, notValues: ['fd00::/8']},"
        " {key: destination.port, values: ['80'], notValues: ['81']},"
        " {key: source.serviceAccount, values: [a/b, only], notValues: [ns/no]}]}]}"
    )
    (rule,) = rules(spec)
    assert len(rule.clauses) == 6
    assert rule.clauses[5].matches_any[0] == Match(
        service_accounts=(
            ServiceAccountMatch("a", "b"),
            ServiceAccountMatch("shop", "only"),
        ),
        not_service_accounts=(ServiceAccountMatch("ns", "no"),),
    )
    assert rule.clauses[4].matches_any[0] == Match(
        destination_ports=(80,), not_destination_ports=(81,)
    )
    assert rule.matches(CALL)


@pytest.mark.parametrize(
    ("namespace", "spec", "scope"),
    [
        ("istio-system", "{}", PolicyScope.GLOBAL),
        ("shop", "{}", PolicyScope.NAMESPACE),
        ("shop", "{selector: {matchLabels: {}}}", PolicyScope.NAMESPACE),
        ("shop", "{selector: {matchLabels: {a: b}}}", PolicyScope.WORKLOAD_SELECTOR),
        ("istio-system", "{selector: {matchLabels: {a: b}}}", PolicyScope.WORKLOAD_SELECTOR),
    ],
)
def test_scope(namespace: str, spec: str, scope: PolicyScope) -> None:
    found, _ = compiled(spec, namespace=namespace)
    assert found is not None
    assert found.scope is scope


def named_by(mesh: CompiledMesh, name: str) -> tuple[str, ...]:
    return next(
        each.authorization_policies for each in mesh.workloads.values() if each.name == name
    )


def test_selector_policies_are_named_on_the_workloads_they_select() -> None:
    select = "{selector: {matchLabels: {app: web}}}"
    mesh = manifests.mesh(
        pod("a", labels="app: web")
        + pod("b", labels="app: api")
        + pod("c", namespace="other", labels="app: web")
        + policy(select, name="own")
        + policy(select, name="everywhere", namespace="istio-system")
        + policy("{}", name="all")
    )
    assert named_by(mesh, "a") == ("istio-system/everywhere", "shop/own")
    assert named_by(mesh, "b") == ()
    assert named_by(mesh, "c") == ("istio-system/everywhere",)


@pytest.mark.parametrize("action", ["ALLOW", "DENY", "DNEY"])
def test_a_stand_in_denies_everything(action: str) -> None:
    found = load(policy(f"{{action: {action}, rules: [{{from: [x]}}]}}"))
    mesh = compile_mesh(found.objects, Settings(), frozenset())
    (stand_in,) = mesh.policies.values()
    assert isinstance(decide([stand_in], CALL), Deny)
    assert mesh.statuses[0].reason == "Broken"


@pytest.mark.parametrize("action", ["DENY", "DNEY"])
def test_a_stand_in_that_may_have_been_a_deny_wins_over_an_allow(action: str) -> None:
    found = load(policy(f"{{action: {action}, rules: 5}}") + policy("{rules: [{}]}", name="open"))
    mesh = compile_mesh(found.objects, Settings(), frozenset())
    assert isinstance(decide(mesh.policies.values(), CALL), Deny)
