"""Policies are read strictly: each of these would otherwise mean more, or less, than was meant."""

from __future__ import annotations

import pytest

from control.server.sources import security
from tests.support.manifests import load, objects, policy

SOURCE = "{rules: [{from: [{source: {%s}}]}]}"
OPERATION = "{rules: [{to: [{operation: {%s}}]}]}"
WHEN = "{rules: [{when: [{%s}]}]}"


@pytest.mark.parametrize(
    "spec",
    [
        "{}",
        "{rules: [{}]}",
        "null",
        "{action: AUDIT}",
        "{action: CUSTOM, provider: {name: x}}",
        "{targetRefs: [{kind: Service, name: x}]}",
        SOURCE % 'principals: ["*", "a*"], ipBlocks: [10.0.0.1, "fd00::/8"]',
        SOURCE % "serviceAccounts: [web, shop/api]",
        SOURCE % "requestPrincipals: ['*']",
        OPERATION % 'ports: ["80", "65535"], methods: [GET]',
        WHEN % "key: source.ip, values: [10.0.0.0/8]",
        WHEN % "key: destination.port, notValues: ['80']",
        WHEN % "key: 'request.headers[x-y]', values: [z]",
        WHEN % "key: 'request.auth.claims[a][b]', values: [z]",
        WHEN % "key: 'request.experimental.inline.headers[a]', values: [z]",
        WHEN % "key: source.trustDomain, values: [td]",
        WHEN % "key: source.serviceAccount, values: [shop/web], notValues: [api]",
    ],
)
def test_accepted(spec: str) -> None:
    assert not objects(policy(spec)).authorization_policies[0].broken


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("[]", "spec: must be a mapping"),
        ("{rule: []}", "unknown field spec.rule"),
        ("{rules: {}}", "spec.rules: must be a list"),
        ("{rules: [x]}", "spec.rules[0]: must be a mapping"),
        ("{rules: [{form: []}]}", "unknown field spec.rules[0].form"),
        ("{rules: [{from: []}]}", "spec.rules[0].from: is an empty list"),
        ("{rules: [{to: []}]}", "empty list"),
        ("{rules: [{from: [{}]}]}", "needs at least one field"),
        (SOURCE % "", "needs at least one field"),
        (SOURCE % "principals: []", "principals: is an empty list"),
        (SOURCE % "principals: ['']", "an empty value"),
        (SOURCE % "principals: web", "must be a list"),
        (SOURCE % "principals: [5]", "must be a string, not the number 5"),
        (SOURCE % "namespaces: [true]", "must be a string, not the boolean true"),
        (SOURCE % "ipBlocks: [10.0.0.0/33]", "'10.0.0.0/33' is not an address or CIDR block"),
        (SOURCE % "ipBlocks: [10.0.0]", "not an address"),
        (SOURCE % "serviceAccounts: ['a/b/c']", "not namespace/account"),
        (SOURCE % "serviceAccounts: ['*']", "not namespace/account"),
        (SOURCE % "serviceAccounts: [a], principals: [b]", "beside serviceAccounts"),
        (SOURCE % f"serviceAccounts: [{', '.join('abcdefghijklmnopq')}]", "more than 16"),
        (OPERATION % "ports: [80]", "must be a string, not the number 80"),
        (OPERATION % "ports: ['0']", "not a port"),
        (OPERATION % "ports: ['080']", "not a port"),
        (OPERATION % "ports: null", "needs at least one field"),
        (SOURCE % "principals: null", "needs at least one field"),
        (SOURCE % "ipBlocks: ['fe80::1%eth0']", "is not an address or CIDR block"),
        (SOURCE % "ipBlocks: [10.0.0.0/08]", "is not an address or CIDR block"),
        (OPERATION % "ports: ['65536']", "not a port"),
        (OPERATION % "ports: ['8\u0660']", "not a port"),
        (OPERATION % "port: ['80']", "unknown field"),
        (WHEN % "key: source.ipp, values: [x]", "unknown condition 'source.ipp'"),
        (WHEN % "key: source.ip", "values or notValues is needed"),
        (WHEN % "key: source.ip, values: [x]", "not an address"),
        (WHEN % "values: [x]", "unknown condition ''"),
        (WHEN % "key: source.serviceAccount, values: ['*']", "not namespace/account"),
        ("{action: DNEY}", "'DNEY' is not ALLOW, DENY, AUDIT or CUSTOM"),
        ("{selector: {app: web}}", "unknown field spec.selector.app"),
        ("{selector: {matchLabels: {app: 'w*'}}}", "wildcards"),
        (
            "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: x}]}",
            "beside targetRefs",
        ),
        ("{targetRef: {}}", "a target needs a kind and a name"),
        ("{targetRefs: [{kind: Service}]}", "a target needs a kind and a name"),
        (f"{{rules: [{'{}, ' * (security.RULES_MAX + 1)}]}}", "rules, more than 512"),
    ],
)
def test_refused(spec: str, says: str) -> None:
    found = load(policy(spec))
    assert says in found.problems[0].message
    assert found.objects.authorization_policies[0].broken


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{mtls: {mode: strict}}", "'strict' is none of"),
        ("{mtls: STRICT}", "must be a mapping"),
        ("{mtl: {}}", "unknown field"),
        ("{portLevelMtls: {80: {mode: STRICT}}}", "needs a selector"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}", "not a port"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {70000: {}}}", "not a port"),
        (
            "{selector: {matchLabels: {a: b}},"
            " portLevelMtls: {'8080': {mode: STRICT}, '08080': {mode: DISABLE}}}",
            "portLevelMtls.08080: is not a port",
        ),
    ],
)
def test_peer_authentication_refused(spec: str, says: str) -> None:
    found = load(policy(spec, kind="PeerAuthentication"))
    assert says in found.problems[0].message
    assert found.objects.peer_authentications[0].broken


def test_an_unknown_field_beside_spec_is_refused() -> None:
    found = load(policy("{}") + "rules: []\n")
    assert "unknown field rules" in found.problems[0].message


def test_a_scope_outside_the_manifest_kind_is_kept_for_waypoints() -> None:
    (found,) = objects(policy("{targetRef: {kind: Gateway, name: w}}")).authorization_policies
    assert found.has_target_refs


@pytest.mark.parametrize(
    "target",
    [
        *("targetRefs: []", "targetRef: {}", "targetRefs: [{kind: x}]"),
        "targetRef: {kind: Service, name: s}, selector: []",
        "targetRef: {kind: Service, name: s}, selector: {matchLabels: {a: b}}",
    ],
)
def test_an_unsure_target_does_not_hand_a_broken_policy_to_waypoints(target: str) -> None:
    (found,) = load(policy(f"{{{target}, rules: [{{form: []}}]}}")).objects.authorization_policies
    assert found.broken
    assert not found.has_target_refs
