"""HTTPRoutes: defaults that the CRD would fill in, and fields that are refused by name."""

from __future__ import annotations

import pytest

from control.model.route import PathKind, RequestMatch, Retry, TextMatch, TextMatchKind
from control.server.sources.folder import Folder
from control.server.sources.objects import RouteObject
from control.server.sources.route_specs import ParentRef, RouteRule, TargetRef
from tests.support.gateways import route
from tests.support.manifests import load, objects

TO_WEB = "backendRefs: [{name: web, port: 80}]"


def read(spec: str, parent: str = "{group: '', kind: Service, name: web}") -> RouteObject:
    (found,) = objects(route(spec, parent=parent)).http_routes
    return found


def refusal(spec: str) -> str:
    found = load(route(spec))
    assert found.objects.http_routes == ()
    (problem,) = found.problems
    assert problem.object == "HTTPRoute shop/route"
    return problem.message


def match(text: str) -> RequestMatch:
    return read(f"rules: [{{matches: [{text}]}}]").spec.rules[0].matches[0]


def test_everything_that_is_not_said_has_a_default() -> None:
    found = read(f"rules: [{{{TO_WEB}}}]", "{name: gate}")
    gate = TargetRef("gateway.networking.k8s.io", "Gateway", "shop", "gate")
    assert found.spec.parents == (ParentRef(gate),)
    (rule,) = found.spec.rules
    assert rule.matches == (RequestMatch("/", PathKind.PREFIX),)
    assert (rule.timeout_s, rule.try_timeout_s, rule.retry) == (None, None, None)
    (backend,) = rule.backends
    assert backend.ref == TargetRef("", "Service", "shop", "web")
    assert (backend.port, backend.weight) == (80, 1)


def test_a_route_without_rules_has_one_that_matches_everything() -> None:
    assert read("hostnames: []").spec.rules == (RouteRule(),)
    assert read("rules: []").spec.rules == ()
    assert read("rules: [{}]").spec.rules == (RouteRule(),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", RequestMatch()),
        ("{path: {value: /a/}}", RequestMatch("/a")),
        ("{path: {value: /a//}}", None),
        ("{path: {type: Exact, value: /a/}}", RequestMatch("/a/", PathKind.EXACT)),
        (
            "{path: {type: RegularExpression, value: '/a.*'}}",
            RequestMatch("/a.*", PathKind.REGEX),
        ),
        ("{method: GET}", RequestMatch(method="GET")),
        (
            "{headers: [{name: X-A, value: b}]}",
            RequestMatch(headers=(TextMatch("x-a", "b"),)),
        ),
        (
            "{headers: [{name: X-A, value: b}, {name: x-a, value: c}, {name: d, value: e}]}",
            RequestMatch(headers=(TextMatch("x-a", "b"), TextMatch("d", "e"))),
        ),
        (
            "{queryParams: [{name: Q, value: 'b+', type: RegularExpression}]}",
            RequestMatch(query=(TextMatch("Q", "b+", TextMatchKind.REGEX),)),
        ),
    ],
)
def test_matches(text: str, expected: RequestMatch | None) -> None:
    if expected is None:
        assert "path" in refusal(f"rules: [{{matches: [{text}]}}]")
    else:
        assert match(text) == expected


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("useDefaultGateways: All", "unknown field spec.useDefaultGateways"),
        ("rules: [{sessionPersistence: {}}]", "unknown field spec.rules[0].sessionPersistence"),
        ("rules: [{matches: [{grpc: {}}]}]", "unknown field spec.rules[0].matches[0].grpc"),
        ("rules: [{matches: [{path: {type: Glob}}]}]", "path.type"),
        ("rules: [{matches: [{method: get}]}]", "method"),
        ("rules: [{matches: [{headers: [{name: a}]}]}]", "headers[0].value: is missing"),
        ("rules: [{matches: [{headers: [{name: 'a b', value: c}]}]}]", "headers[0].name"),
        ("rules: [{matches: [{queryParams: [{name: 'a=', value: c}]}]}]", "queryParams[0].name"),
        ("rules: [{backendRefs: [{name: web}]}]", "backendRefs[0].port: a Service needs one"),
        ("rules: [{backendRefs: [{name: web, port: 80, weight: -1}]}]", "weight"),
        ("rules: [{name: a}, {name: a}]", "two rules have one name"),
        ("rules: [{timeouts: {request: 1.5s}}]", "is not a duration"),
        ("rules: [{timeouts: {request: 1s, backendRequest: 2s}}]", "is longer than"),
        ("rules: [{retry: {codes: [200]}}]", "200 is not between 400 and 599"),
        ("rules: [{retry: {codes: [a]}}]", "must be a whole number"),
        ("rules: [{retry: {attempts: 101}}]", "attempts"),
        ("hostnames: [a_b]", "is not a hostname"),
        (f"rules: [{', '.join(['{}'] * 17)}]", "17 entries, more than 16"),
        (f"rules: [{{matches: [{', '.join(['{}'] * 65)}]}}]", "more than 64"),
        ("rules: [" + ", ".join([f"{{matches: [{', '.join(['{}'] * 64)}]}}"] * 3) + "]", "128"),
        (f"hostnames: [{', '.join(['a'] * 17)}]", "more than 16"),
    ],
)
def test_a_field_that_is_wrong_or_unknown_is_named(spec: str, said: str) -> None:
    assert said in refusal(spec)


def test_timeouts_and_retries() -> None:
    (rule,) = read(
        "rules: [{timeouts: {request: 1m, backendRequest: 1s500ms},"
        " retry: {attempts: 3, codes: [500, 503], backoff: 100ms}}]"
    ).spec.rules
    assert (rule.timeout_s, rule.try_timeout_s) == (60.0, 1.5)
    assert rule.retry == Retry(3, (500, 503), 0.1)
    (rule,) = read("rules: [{timeouts: {request: 0s, backendRequest: 2s}, retry: {}}]").spec.rules
    assert (rule.timeout_s, rule.try_timeout_s, rule.retry) == (0.0, 2.0, Retry())


def test_a_broken_change_leaves_the_last_good_route() -> None:
    folder = Folder()
    folder.load("a.yaml", route(f"rules: [{{{TO_WEB}}}]").encode())
    folder.snapshot()
    folder.load("a.yaml", route("rules: [{x: y}]").encode())
    found = folder.snapshot()
    assert found.objects.http_routes[0].spec.rules[0].backends
    assert "last good version stays" in found.problems[0].message
