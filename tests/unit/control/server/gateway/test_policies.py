"""AuthorizationPolicies as a waypoint enforces them: what it cannot check never allows."""

from __future__ import annotations

import pytest

from control.model.address import parse_block
from control.model.http_policy import (
    HttpClause,
    HttpMatch,
    HttpPolicy,
    HttpPolicyRule,
    PathTemplate,
    ValueMatch,
)
from control.model.policy import Action, Match, ServiceAccountMatch, StringMatch, StringMatchKind
from control.model.route import Layer
from control.server.gateway.policies import CompiledHttp, compile_http
from tests.support.manifests import load, objects, policy

TARGET = "targetRefs: [{kind: Service, name: web}]"


def compiled(
    rules: str, action: str = "ALLOW", layer: Layer = Layer.HTTP, **meta: str
) -> CompiledHttp:
    text = policy(f"{{{TARGET}, action: {action}, rules: [{rules}]}}", **meta)
    return compile_http(objects(text).authorization_policies[0], layer)


def rules_of(found: CompiledHttp) -> tuple[HttpPolicyRule, ...]:
    assert found.policy is not None
    return found.policy.rules


def clause(rules: str, action: str = "ALLOW") -> HttpMatch:
    found = compiled(rules, action)
    assert found.notes == ()
    (rule,) = rules_of(found)
    ((match,),) = [each.matches_any for each in rule.clauses]
    return match


def exact(*texts: str) -> tuple[StringMatch, ...]:
    return tuple(StringMatch(StringMatchKind.EXACT, each) for each in texts)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            "{to: [{operation: {methods: [GET], notMethods: [POST]}}]}",
            HttpMatch(methods=exact("GET"), not_methods=exact("POST")),
        ),
        (
            "{to: [{operation: {paths: ['/a*', '/{*}/b'], notPaths: ['/a/{**}']}}]}",
            HttpMatch(
                paths=(StringMatch(StringMatchKind.PREFIX, "/a"), PathTemplate("/{*}/b")),
                not_paths=(PathTemplate("/a/{**}"),),
            ),
        ),
        (
            "{to: [{operation: {hosts: ['*.b'], notHosts: [c], ports: ['80']}}]}",
            HttpMatch(
                l4=Match(destination_ports=(80,)),
                hosts=(StringMatch(StringMatchKind.SUFFIX, ".b"),),
                not_hosts=exact("c"),
            ),
        ),
        (
            "{from: [{source: {principals: [a], serviceAccounts: []}}]}",
            None,
        ),
        (
            "{from: [{source: {serviceAccounts: [web], notIpBlocks: [10.0.0.0/8]}}]}",
            HttpMatch(
                l4=Match(
                    service_accounts=(ServiceAccountMatch("shop", "web"),),
                    not_source_ips=(parse_block("10.0.0.0/8"),),
                )
            ),
        ),
        (
            "{from: [{source: {requestPrincipals: ['*'], notRequestPrincipals: [a/b]}}]}",
            HttpMatch(
                request_principals=(StringMatch(StringMatchKind.PRESENCE),),
                not_request_principals=exact("a/b"),
            ),
        ),
        (
            "{when: [{key: 'request.headers[X-A]', values: [b], notValues: [c]}]}",
            HttpMatch(headers=(ValueMatch(("x-a",), exact("b"), exact("c")),)),
        ),
        (
            "{when: [{key: 'request.auth.claims[a][b]', values: [c]}]}",
            HttpMatch(claims=(ValueMatch(("a", "b"), exact("c")),)),
        ),
        (
            "{when: [{key: request.auth.audiences, values: [c]}]}",
            HttpMatch(claims=(ValueMatch(("aud",), exact("c")),)),
        ),
        (
            "{when: [{key: request.auth.presenter, values: [c]}]}",
            HttpMatch(claims=(ValueMatch(("azp",), exact("c")),)),
        ),
        (
            "{when: [{key: request.auth.principal, values: [c]}]}",
            HttpMatch(request_principals=exact("c")),
        ),
        (
            "{when: [{key: destination.port, values: ['80']}]}",
            HttpMatch(l4=Match(destination_ports=(80,))),
        ),
    ],
)
def test_each_field_is_read(rules: str, expected: HttpMatch | None) -> None:
    if expected is None:
        assert load(policy(f"{{{TARGET}, rules: [{rules}]}}")).problems
        return
    assert clause(rules) == expected
    assert clause(rules, action="DENY") == expected


def test_a_rule_is_an_and_of_its_parts() -> None:
    (rule,) = rules_of(
        compiled(
            "{to: [{operation: {methods: [GET]}}, {operation: {methods: [PUT]}}],"
            " from: [{source: {namespaces: [a]}}], when: [{key: source.ip, values: [10.0.0.1]}]}"
        )
    )
    assert [len(each.matches_any) for each in rule.clauses] == [2, 1, 1]


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        ("{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}", "remoteIpBlocks"),
        ("{from: [{source: {notTrustDomains: [a]}}]}", "notTrustDomains"),
        ("{when: [{key: remote.ip, values: [10.0.0.1]}]}", "remote.ip"),
        ("{when: [{key: connection.sni, values: [a]}]}", "connection.sni"),
        ("{when: [{key: source.trustDomain, values: [a]}]}", "source.trustDomain"),
    ],
)
def test_a_field_that_cannot_be_checked_closes(rules: str, name: str) -> None:
    more = rules.replace("{from:", "{to: [{operation: {methods: [GET]}}], from:").replace(
        "{when:", "{to: [{operation: {methods: [GET]}}], when:"
    )
    allow = compiled(more)
    assert rules_of(allow) == (), "the rule is dropped"
    assert name in allow.notes[0]
    deny = compiled(more, "DENY")
    only = HttpClause((HttpMatch(methods=exact("GET")),))
    assert rules_of(deny) == (HttpPolicyRule((only,)),), "it is enforced without"
    assert rules_of(compiled(rules, "DENY")) == (HttpPolicyRule(),), (
        "nothing is left: it always holds"
    )


def test_a_source_keeps_what_can_be_checked() -> None:
    rules = "{from: [{source: {namespaces: [a], remoteIpBlocks: [10.0.0.0/8]}}]}"
    (rule,) = rules_of(compiled(rules, "DENY"))
    assert rule.clauses == (HttpClause((HttpMatch(l4=Match(namespaces=exact("a"))),)),)
    either = "{from: [{source: {namespaces: [a]}}, {source: {remoteIpBlocks: [10.0.0.0/8]}}]}"
    assert rules_of(compiled(either, "DENY")) == (HttpPolicyRule(),)


@pytest.mark.parametrize("path", ["/a//{*}", "/{*}/", "a/{*}", "/a{*}", "/{**}/a", "/{*}/*"])
def test_a_template_that_no_path_is_matched_with_closes(path: str) -> None:
    rules = f"{{to: [{{operation: {{methods: [GET], paths: ['{path}', /a]}}}}]}}"
    allow = compiled(rules)
    assert rules_of(allow) == ()
    assert path in allow.notes[0]
    match = HttpMatch(methods=exact("GET"))
    assert rules_of(compiled(rules, "DENY")) == (HttpPolicyRule((HttpClause((match,)),)),)
    but = f"{{to: [{{operation: {{methods: [GET], notPaths: ['{path}', /a]}}}}]}}"
    match = HttpMatch(methods=exact("GET"), not_paths=exact("/a"))
    assert rules_of(compiled(but, "DENY")) == (HttpPolicyRule((HttpClause((match,)),)),)
    alone = f"{{to: [{{operation: {{paths: ['{path}']}}}}]}}"
    assert rules_of(compiled(alone, "DENY")) == (HttpPolicyRule(),)


def test_nobody_sees_requests_at_a_tcp_port() -> None:
    rules = "{to: [{operation: {methods: [GET], ports: ['80']}}]}"
    rules += ", {from: [{source: {namespaces: [a]}}]}"
    l4 = HttpPolicyRule((HttpClause((HttpMatch(l4=Match(namespaces=exact("a"))),)),))
    port = HttpPolicyRule((HttpClause((HttpMatch(l4=Match(destination_ports=(80,))),)),))
    assert rules_of(compiled(rules, layer=Layer.TCP)) == (l4,)
    assert rules_of(compiled(rules, "DENY", Layer.TCP)) == (port, l4)
    assert rules_of(compiled("{to: [{operation: {methods: [GET]}}]}", "DENY", Layer.TCP)) == (
        HttpPolicyRule(),
    )


def test_custom_denies_and_audit_does_nothing() -> None:
    rules = "{to: [{operation: {methods: [GET]}}]}"
    custom = compiled(rules, "CUSTOM")
    assert custom.policy is not None
    assert (custom.policy.action, custom.policy.rules) == (
        Action.DENY,
        rules_of(compiled(rules, "DENY")),
    )
    assert custom.notes
    assert compiled(rules, "AUDIT").policy is None


def test_no_rules_and_an_empty_rule() -> None:
    assert rules_of(compiled("")) == ()
    assert rules_of(compiled("{}")) == (HttpPolicyRule(),)


def test_dry_run_is_kept() -> None:
    found = compiled("{}", annotations="{istio.io/dry-run: 'true'}")
    assert found.policy == HttpPolicy("shop/p", Action.ALLOW, (HttpPolicyRule(),), dry_run=True)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("ALLOW", HttpPolicy("shop/p", Action.ALLOW, ())),
        ("DENY", HttpPolicy("shop/p", Action.DENY, (HttpPolicyRule(),))),
        ("DNY", HttpPolicy("shop/p", Action.DENY, (HttpPolicyRule(),))),
    ],
)
def test_a_broken_policy_closes(action: str, expected: HttpPolicy) -> None:
    snapshot = load(policy(f"{{{TARGET}, action: {action}, rulez: []}}"))
    (value,) = snapshot.objects.authorization_policies
    assert [each.name for each in value.targets] == ["web"]
    found = compile_http(value, Layer.HTTP)
    assert found.policy == expected
