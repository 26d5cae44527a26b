"""Filters of routes: read, refused by name, or left to be answered with 500."""

from __future__ import annotations

import pytest

from control.model.route import Cors, HeaderChange, Redirect, Rewrite
from control.server.sources.route_specs import RouteFilters, TargetRef
from tests.support.gateways import route
from tests.support.manifests import load, objects

SETS = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}]}}"
REDIRECT = "{type: RequestRedirect, requestRedirect: {hostname: a.b}}"
REWRITE = "{type: URLRewrite, urlRewrite: {hostname: a.b}}"


def read(*filters: str, more: str = "") -> RouteFilters:
    text = route(f"rules: [{{filters: [{', '.join(filters)}]{more}}}]")
    return objects(text).http_routes[0].spec.rules[0].filters


def refusal(filters: str, more: str = "") -> str:
    (problem,) = load(route(f"rules: [{{filters: [{filters}]{more}}}]")).problems
    return problem.message


def test_headers_are_changed_by_lower_case_names_the_first_of_each_alone() -> None:
    found = read(
        "{type: RequestHeaderModifier, requestHeaderModifier: {"
        "set: [{name: A, value: b}, {name: a, value: c}], add: [{name: D, value: ''}],"
        " remove: [E, e]}}",
        "{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x]}}",
    )
    assert found.request_headers == HeaderChange(("e",), (("a", "b"),), (("d", ""),))
    assert found.response_headers == HeaderChange(("x",))
    assert not found.refusal


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("", Redirect()),
        ("statusCode: 308, scheme: https, port: 8443", Redirect(308, "https", "", 8443)),
        ("path: {type: ReplaceFullPath, replaceFullPath: /a}", Redirect(path="/a")),
        ("path: {type: ReplacePrefixMatch, replacePrefixMatch: /a/}", Redirect(prefix="/a")),
        ("path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}", Redirect(prefix="/")),
    ],
)
def test_redirects(inside: str, expected: Redirect) -> None:
    assert read(f"{{type: RequestRedirect, requestRedirect: {{{inside}}}}}").redirect == expected


def test_a_rewrite() -> None:
    found = read(
        "{type: URLRewrite, urlRewrite: {hostname: a.b,"
        " path: {type: ReplaceFullPath, replaceFullPath: /c}}}"
    )
    assert found.rewrite == Rewrite("a.b", "/c")


@pytest.mark.parametrize(
    ("inside", "share"),
    [("", 1.0), (", percent: 10", 0.1), (", fraction: {numerator: 1, denominator: 4}", 0.25),
     (", fraction: {numerator: 5}", 0.05), (", percent: 0", 0.0)],
)  # fmt: skip
def test_mirrors_may_stand_several_times(inside: str, share: float) -> None:
    mirror = f"{{type: RequestMirror, requestMirror: {{backendRef: {{name: a, port: 1}}{inside}}}}}"
    found = read(mirror, mirror).mirrors
    assert [each.share for each in found] == [share, share]
    assert found[0].backend.ref == TargetRef("", "Service", "shop", "a")


def test_cors() -> None:
    found = read(
        "{type: CORS, cors: {allowOrigins: ['https://*.a.b', '*'], allowMethods: [GET, '*'],"
        " allowHeaders: [X-A], exposeHeaders: [X-B], maxAge: 60, allowCredentials: true}}"
    )
    assert found.cors == Cors(("https://*.a.b", "*"), ("GET", "*"), ("X-A",), ("X-B",), 60, True)
    assert read("{type: CORS, cors: {}}").cors == Cors()


@pytest.mark.parametrize(
    "filters",
    [
        "{type: ExtensionRef, extensionRef: {group: a, kind: b, name: c}}",
        "{type: ExternalAuth, externalAuth: {}}",
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: a}]}}",
    ],
)
def test_one_that_we_cannot_do_is_no_error_but_closes_the_rule(filters: str) -> None:
    assert read(filters, SETS if "Host" not in filters else REWRITE).refusal


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (f"{SETS}, {SETS}", "RequestHeaderModifier stands 2 times"),
        (f"{REDIRECT}, {REWRITE}", "cannot stand together"),
        ("{type: Magic}", "'Magic' is none of"),
        ("{type: CORS}", "filters[0].cors: is missing"),
        ("{type: URLRewrite, urlRewrite: {host: a}}", "unknown field"),
        ("{type: CORS, cors: {}, urlRewrite: {}}", "unknown field"),
        ("{type: URLRewrite, urlRewrite: {hostname: '*.a'}}", "has to be a whole name"),
        ("{type: RequestRedirect, requestRedirect: {statusCode: 304}}", "304 is none of"),
        ("{type: RequestRedirect, requestRedirect: {scheme: ftp}}", "is not http or https"),
        ("{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}", "needs it"),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: a}}}",
            "is not a path",
        ),
        (
            SETS.replace("name: A", "name: ':path'"),
            "is not the name of a header",
        ),
        (
            SETS.replace("value: b", 'value: "b\\nc"'),
            "is no value of a header",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 101}}",
            "is not between 0 and 100",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 1,"
            " fraction: {numerator: 1}}}",
            "cannot stand beside a fraction",
        ),
        ("{type: CORS, cors: {allowOrigins: [a]}}", "is not SCHEME://HOST"),
        ("{type: CORS, cors: {maxAge: 0}}", "is no number of seconds"),
        (", ".join(["{type: ExtensionRef}"] * 17), "17 entries, more than 16"),
    ],
)
def test_a_filter_that_is_wrong_is_named(filters: str, said: str) -> None:
    assert said in refusal(filters)


def test_some_go_with_some_matches_and_backends_alone() -> None:
    prefix = (
        "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}"
    )
    assert "PathPrefix" in refusal(prefix, ", matches: [{path: {type: Exact, value: /a}}]")
    assert "cannot stand beside" in refusal(REDIRECT, ", backendRefs: [{name: a, port: 1}]")


def test_a_backend_may_change_headers_and_nothing_else() -> None:
    text = "rules: [{{backendRefs: [{{name: a, port: 1, filters: [{}]}}]}}]"
    for filters, is_fine in ((SETS, True), (REWRITE, False)):
        (rule,) = objects(route(text.format(filters))).http_routes[0].spec.rules
        assert (rule.backends[0].refusal == "") == is_fine
    assert rule.backends[0].request_headers == HeaderChange()
