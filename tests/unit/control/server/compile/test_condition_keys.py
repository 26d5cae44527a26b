"""Every condition key that Istio's validation accepts: checked at layer 4, or a rule of layer 7
with Istio's effect. Keys that it refuses are refused here, and the policy denies."""

from __future__ import annotations

import pytest

from control.model.address import parse_block
from control.model.policy import (
    Action,
    Clause,
    Match,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from tests.support.manifests import load, mesh, policy

ONE, OTHER = parse_block("10.0.0.0/8"), parse_block("10.1.2.3")


def exact(text: str) -> tuple[StringMatch, ...]:
    return (StringMatch(StringMatchKind.EXACT, text),)


# Key, a value, another for notValues, the match of both.
CHECKED = [
    ("source.ip", "10.0.0.0/8", "10.1.2.3", Match(source_ips=(ONE,), not_source_ips=(OTHER,))),
    ("source.namespace", "a", "b", Match(namespaces=exact("a"), not_namespaces=exact("b"))),
    (
        "source.principal",
        "cluster.local/ns/a/sa/b",
        "x",
        Match(principals=exact("cluster.local/ns/a/sa/b"), not_principals=exact("x")),
    ),
    (
        "source.serviceAccount",
        "a/b",
        "only",
        Match(
            service_accounts=(ServiceAccountMatch("a", "b"),),
            not_service_accounts=(ServiceAccountMatch("shop", "only"),),
        ),
    ),
    (
        "destination.ip",
        "10.0.0.0/8",
        "10.1.2.3",
        Match(destination_ips=(ONE,), not_destination_ips=(OTHER,)),
    ),
    (
        "destination.port",
        "80",
        "443",
        Match(destination_ports=(80,), not_destination_ports=(443,)),
    ),
]
BEYOND = [
    "remote.ip",
    "source.trustDomain",
    "request.headers[User-Agent]",
    "request.headers[x-a.b_c]",
    "request.experimental.inline.headers[x]",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[iss]",
    "request.auth.claims[nested][key]",
    "connection.sni",
    "experimental.envoy.filters.network.mysql_proxy[db.table]",
    "experimental.envoy.filters.a.b[c]",
]
VALUES = {"remote.ip": "10.0.0.0/8"}
REFUSED = [
    *("", "source", "source.ipp", "Source.IP", " source.ip", "source.user", "source.workload"),
    *("destination.labels[version]", "destination.name", "destination.namespace"),
    *("destination.user", "destination.principal", "request", "request.headers"),
    *("request.headers[]", "request.header[x]", "request.auth", "request.auth.claims"),
    *("request.auth.claims[]", "request.auth.claim[x]", "request.method", "request.path"),
    *("request.host", "request.url_path", "connection", "connection.tls"),
    *("experimental.envoy.filters.", "experimental.envoy", "envoy.filters.a[b]"),
    *("experimental.envoy.filters.a", "experimental.envoy.filters.a[]"),
]
BESIDE = "{to: [{operation: {ports: ['5432']}}]}"
KEPT = Rule((Clause((Match(destination_ports=(5432,)),)),))


def compiled(when: str, action: str = "ALLOW") -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """The rules that are left of one with this condition and one beside it, and what was noted."""
    spec = f"{{action: {action}, rules: [{{when: [{when}]}}, {BESIDE}]}}"
    made = mesh(policy(spec))
    (found,) = made.policies.values()
    assert found.action is Action[action]
    return found.rules, made.statuses[0].notes


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(("key", "value", "other", "match"), CHECKED, ids=[r[0] for r in CHECKED])
def test_keys_of_layer_4_are_checked(
    key: str, value: str, other: str, match: Match, action: str
) -> None:
    rules, notes = compiled(f"{{key: {key}, values: ['{value}'], notValues: ['{other}']}}", action)
    assert rules == (Rule((Clause((match,)),)), KEPT)
    assert not any("layer 4 cannot check" in each for each in notes)


@pytest.mark.parametrize("key", BEYOND)
def test_an_allow_rule_with_a_key_of_layer_7_is_dropped_and_the_others_stay(key: str) -> None:
    for fields in ("values", "notValues"):
        rules, notes = compiled(f"{{key: '{key}', {fields}: [{VALUES.get(key, 'x')}]}}")
        assert rules == (KEPT,)
        assert f"layer 4 cannot check {key}: the rule is dropped" in notes[0]


@pytest.mark.parametrize("key", BEYOND)
def test_a_deny_rule_with_nothing_but_a_key_of_layer_7_never_fires(key: str) -> None:
    rules, notes = compiled(f"{{key: '{key}', values: [{VALUES.get(key, 'x')}]}}", "DENY")
    assert rules == (Rule((Clause((Match(),)),)), KEPT)
    assert f"layer 4 cannot check {key}" in notes[0]


@pytest.mark.parametrize("key", REFUSED)
def test_any_other_key_refuses_the_policy_and_it_denies(key: str) -> None:
    found = load(policy(f"{{rules: [{{when: [{{key: '{key}', values: [x]}}]}}, {BESIDE}]}}"))
    assert f"unknown condition {key!r}" in found.problems[0].message
    (made,) = found.objects.authorization_policies
    assert made.broken
    assert made.rules == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("source.ip", bad) for bad in ("x", "10.0.0.0/33", "10.0.0.0/08", "fe80::1%eth0")),
        *(("destination.ip", bad) for bad in ("", "10.0.0", "web")),
        *(("remote.ip", bad) for bad in ("x", "10.0.0.0/33")),
        *(("destination.port", bad) for bad in ("http", "65536", "-1", "080")),
        *(("source.serviceAccount", bad) for bad in ("*", "a/b/c", "/a", "a/")),
        *(("request.headers[x]", bad) for bad in ("",)),
    ],
)
def test_values_that_cannot_be_meant_refuse_the_policy(key: str, value: str) -> None:
    for fields in ("values", "notValues"):
        spec = f"{{rules: [{{when: [{{key: '{key}', {fields}: ['{value}']}}]}}]}}"
        (made,) = load(policy(spec)).objects.authorization_policies
        assert made.broken
