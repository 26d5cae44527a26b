"""Requests against rules and policies: the Gateway API's words on paths, Istio's on policies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.model.http_policy import (
    HttpClause,
    HttpMatch,
    HttpPolicy,
    HttpPolicyRule,
    PathTemplate,
    ValueMatch,
)
from control.model.identity import SpiffeId
from control.model.policy import Action, Connection, Match, StringMatch, StringMatchKind
from control.model.request import (
    BadPath,
    RequestFacts,
    authorize,
    find_rule,
    matches,
    normal_path,
)
from control.model.route import (
    Front,
    Layer,
    PathKind,
    RequestMatch,
    TextMatch,
    TextMatchKind,
)
from control.model.route import HttpRule as Route

CALLER = SpiffeId("cluster.local", "shop", "shopper")
CONNECTION = Connection(CALLER, b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02", 80)
GET = RequestFacts(CONNECTION, host="reviews.shop")
A_IS_1 = replace(GET, headers={"a": "1"})


def exact(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.EXACT, text)


def prefix(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.PREFIX, text)


def policy(action: Action, *found: HttpMatch, name: str = "shop/p") -> HttpPolicy:
    return HttpPolicy(name, action, (HttpPolicyRule((HttpClause(found),)),))


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/a?x=/../b", "/a"),
        ("/a//b///c", "/a/b/c"),
        ("/a/./b/../c", "/a/c"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/", "/a/"),
        ("/%61dmin", "/admin"),
        ("/a%20b", "/a%20b"),
        ("/a%3fb", "/a%3Fb"),
        ("/a/%2e%2e/b", "/b"),
        ("//admin", "/admin"),
    ],
)
def test_one_path_has_one_spelling(raw: str, path: str) -> None:
    assert normal_path(raw) == path
    assert normal_path(path) == path


@pytest.mark.parametrize("raw", ["/a%2fb", "/a%5Cb", "/a\\b", "/../etc", "/a/../..", "a", "", "*"])
def test_a_path_that_could_be_two_is_refused(raw: str) -> None:
    with pytest.raises(BadPath):
        normal_path(raw)


@pytest.mark.parametrize(
    ("wanted", "paths", "others"),
    [
        (RequestMatch("/"), ["/", "/a", "/a/b"], []),
        (RequestMatch("/a"), ["/a", "/a/", "/a/b"], ["/", "/ab", "/b/a"]),
        (RequestMatch("/a", PathKind.EXACT), ["/a"], ["/a/", "/a/b"]),
        (RequestMatch("/v[0-9]+", PathKind.REGEX), ["/v1", "/v22"], ["/v", "/v1/a"]),
    ],
)
def test_a_prefix_is_of_whole_segments(
    wanted: RequestMatch, paths: list[str], others: list[str]
) -> None:
    assert [each for each in (*paths, *others) if matches(wanted, replace(GET, path=each))] == paths


def test_everything_that_a_match_says_has_to_hold() -> None:
    wanted = RequestMatch(
        method="POST",
        headers=(TextMatch("x-version", "2"), TextMatch("x-id", "[a-f]+", TextMatchKind.REGEX)),
        query=(TextMatch("q", ""),),
    )
    whole = replace(GET, method="POST", headers={"x-version": "2", "x-id": "abc"}, query={"q": ""})
    assert matches(wanted, whole)
    assert not matches(wanted, replace(whole, method="GET"))
    assert not matches(wanted, replace(whole, headers={"x-version": "2"}))
    assert not matches(wanted, replace(whole, headers={"x-version": "2", "x-id": "abcz"}))
    assert not matches(wanted, replace(whole, query={}))


def test_the_first_rule_of_the_host_decides() -> None:
    rules = (
        Route("shop/r/0/0", RequestMatch("/a"), hosts=("*.shop",)),
        Route("shop/r/1/0", RequestMatch("/"), hosts=("reviews.shop",)),
    )
    front = Front("shop/reviews:80", "shop/x", "x", (), 80, Layer.HTTP, "shop/reviews:80", rules)

    def found(host: str, path: str) -> str:
        rule = find_rule(front, replace(GET, host=host, path=path))
        return "" if rule is None else rule.name

    assert found("reviews.shop", "/a/b") == "shop/r/0/0"
    assert found("reviews.shop", "/b") == "shop/r/1/0"
    assert found("shop", "/a") == ""
    assert found("other.shop", "/b") == ""
    assert find_rule(replace(front, rules=None), GET) is None


def test_deny_comes_before_allow_and_no_allow_allows_everybody() -> None:
    everyone = policy(Action.ALLOW, HttpMatch(l4=Match(principals=(prefix("cluster.local/"),))))
    no_admin = policy(Action.DENY, HttpMatch(paths=(prefix("/admin"),)), name="shop/no-admin")
    assert str(authorize([], GET)) == "allowed: no policy applies"
    assert authorize([everyone], GET).allowed
    assert str(authorize([everyone, no_admin], replace(GET, path="/admin/x"))) == (
        "denied by shop/no-admin"
    )
    assert authorize([no_admin], GET).allowed
    nobody = HttpPolicy("shop/nothing", Action.ALLOW, ())
    assert str(authorize([nobody], GET)) == "denied: no ALLOW policy matches"
    assert authorize([nobody, everyone], GET).allowed


@pytest.mark.parametrize(
    ("match", "request_", "holds"),
    [
        (HttpMatch(), GET, False),
        (HttpMatch(methods=(exact("GET"),)), GET, True),
        (HttpMatch(not_methods=(exact("GET"),)), GET, False),
        (HttpMatch(hosts=(exact("Reviews.SHOP"),)), GET, True),
        (HttpMatch(not_hosts=(exact("REVIEWS.shop"),)), GET, False),
        (HttpMatch(paths=(PathTemplate("/v1/{*}/x"),)), replace(GET, path="/v1/a/x"), True),
        (HttpMatch(paths=(PathTemplate("/v1/{*}/x"),)), replace(GET, path="/v1/a/b/x"), False),
        (HttpMatch(paths=(PathTemplate("/v1/{**}"),)), replace(GET, path="/v1/a/b"), True),
        (HttpMatch(paths=(PathTemplate("/v.1/{*}"),)), replace(GET, path="/vx1/a"), False),
        (HttpMatch(not_paths=(exact("/"),)), GET, False),
        (HttpMatch(headers=(ValueMatch(("a",), (exact("1"),)),)), GET, False),
        (HttpMatch(headers=(ValueMatch(("a",), (exact("1"),)),)), A_IS_1, True),
        (HttpMatch(headers=(ValueMatch(("a",), (), (exact("1"),)),)), GET, True),
        (HttpMatch(headers=(ValueMatch(("a",), (), (exact("1"),)),)), A_IS_1, False),
        (HttpMatch(l4=Match(destination_ports=(80,)), methods=(exact("GET"),)), GET, True),
        (HttpMatch(l4=Match(destination_ports=(81,)), methods=(exact("GET"),)), GET, False),
        (HttpMatch(request_principals=(prefix(""),)), GET, False),
        (HttpMatch(not_request_principals=(exact("x"),)), GET, False),
        (HttpMatch(claims=(ValueMatch(("iss",), (exact("x"),)),)), GET, False),
    ],
)
def test_each_field_of_a_match(match: HttpMatch, request_: RequestFacts, holds: bool) -> None:
    assert authorize([policy(Action.ALLOW, match)], request_).allowed is holds


def test_a_token_that_nobody_reads_keeps_no_deny_from_denying() -> None:
    wanted = HttpMatch(not_request_principals=(StringMatch(StringMatchKind.PRESENCE),))
    assert not authorize([policy(Action.DENY, wanted)], GET).allowed


def test_a_dry_run_policy_refuses_nobody_and_is_named() -> None:
    deny = replace(policy(Action.DENY, HttpMatch(methods=(exact("GET"),))), dry_run=True)
    allow = replace(HttpPolicy("shop/nothing", Action.ALLOW, ()), dry_run=True)
    found = authorize([deny, allow], GET)
    assert found.allowed
    assert found.dry_run == ("shop/p", "shop/nothing")
    assert authorize([replace(deny, rules=())], GET).dry_run == ()
