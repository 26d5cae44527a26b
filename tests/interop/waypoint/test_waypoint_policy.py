"""Each field of an L7 policy, allowing and denying, by a real Envoy that is told what we encode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from tests.interop.waypoint.conftest import Shop
from tests.support.engine.tunnel_bed import eventually
from tests.support.peers.tunnel_client import Answer, TunnelClient, ask
from tests.support.waypoint.bed import account, by_name, front

VIP = "10.96.0.30"
EXACT, PREFIX = StringMatchKind.EXACT, StringMatchKind.PREFIX
SUFFIX, PRESENCE = StringMatchKind.SUFFIX, StringMatchKind.PRESENCE


def texts(kind: StringMatchKind, *values: str) -> tuple[StringMatch, ...]:
    return tuple(StringMatch(kind, each) for each in values)


def policy(action: Action, *matches: HttpMatch, name: str = "shop/p", **more: Any) -> HttpPolicy:
    """One rule, an AND of these."""
    clauses = tuple(HttpClause((each,)) for each in matches)
    return HttpPolicy(name, action, (HttpPolicyRule(clauses),), **more)


@pytest.fixture
def judged(shop: Shop) -> Any:
    """Apply policies to the one front and ask once they are there: by default the shopper's GET."""
    number = iter(range(1_000_000))
    tunnels: dict[Any, TunnelClient] = {}

    def apply(*policies: HttpPolicy) -> Callable[..., Answer]:
        mark = f"mark{next(number)}{id(policies)}"
        seal = policy(
            Action.DENY, HttpMatch(methods=texts(EXACT, "PURGE"), paths=texts(EXACT, f"/{mark}"))
        )
        seal = HttpPolicy("a/seal", seal.action, seal.rules)
        made = front("shop/guarded:80", VIP, backend="shop/v1:80", policies=(seal, *policies))
        shop.bed.apply(by_name(made))
        eventually(lambda: is_there(mark), "the policies are in force")

        return request

    def tunnel_of(who: Any) -> TunnelClient:
        found = tunnels.get(who)
        if found is None or found.is_over:
            found = tunnels[who] = shop.bed.tunnel(who, f"{VIP}:80")
        return found

    def request(path: str = "/", who: Any = "shopper", **more: Any) -> Answer:
        return ask(tunnel_of(who), path, **more)

    def is_there(mark: str) -> bool:
        if tunnel_of("shopper").status != 200:
            tunnels.pop("shopper").close()
            return False
        request(f"/{mark}", method="PURGE")
        lines = [each for each in shop.bed.log() if each.get("path") == f"/{mark}"]
        return any("a/seal" in each.get("details", "") for each in lines)

    yield apply
    for each in tunnels.values():
        each.close()
    assert shop.bed.ads.nacks == []


CASES: list[tuple[str, HttpMatch, list[dict[str, Any]], list[dict[str, Any]]]] = [
    ("methods", HttpMatch(methods=texts(EXACT, "GET", "PUT")), [{}], [{"method": "POST"}]),
    ("not methods", HttpMatch(not_methods=texts(EXACT, "POST")), [{}], [{"method": "POST"}]),
    (
        "paths",
        HttpMatch(
            paths=(
                *texts(EXACT, "/e"),
                *texts(PREFIX, "/p"),
                *texts(SUFFIX, ".js"),
                PathTemplate("/t/{*}/x/{**}"),
            )
        ),
        [{"path": each} for each in ("/e", "/e?q", "/p/x", "/a.js", "/a.js?x=/b", "/t/1/x/2/3")],
        [{"path": each} for each in ("/", "/e/", "/a?x=.js", "/t/1/2/x/3", "/t/1/y/2")],
    ),
    (
        "not paths",
        HttpMatch(not_paths=texts(PREFIX, "/admin")),
        [{"path": "/x"}],
        [{"path": each} for each in ("/admin", "/x/../admin", "//admin", "/./admin", "/%61dmin")],
    ),
    (
        "hosts",
        HttpMatch(hosts=(*texts(EXACT, "one.shop"), *texts(SUFFIX, ".two.shop"))),
        [
            {"host": each}
            for each in ("one.shop", "One.Shop:80", "one.shop.", "a.two.shop", "a.two.SHOP:8080")
        ],
        [{"host": each} for each in ("oneXshop", "two.shop", "one.shop.evil", "x")],
    ),
    (
        "not hosts",
        HttpMatch(not_hosts=texts(EXACT, "one.shop")),
        [{"host": "two"}],
        [{"host": each} for each in ("one.shop", "one.shop:80", "ONE.shop", "one.shop.")],
    ),
    (
        "headers",
        HttpMatch(
            headers=(ValueMatch(("x-a",), texts(EXACT, "1") + texts(PREFIX, "p")),),
        ),
        [{"headers": {"x-a": each}} for each in ("1", "px")],
        [{}, {"headers": {"x-a": "2"}}, {"headers": {"x-a": ""}}],
    ),
    (
        "headers that must not be",
        HttpMatch(headers=(ValueMatch(("x-a",), (), texts(EXACT, "1")),)),
        [{}, {"headers": {"x-a": "2"}}],
        [{"headers": {"x-a": "1"}}],
    ),
    (
        "a header that is there",
        HttpMatch(headers=(ValueMatch(("x-a",), texts(PRESENCE, "")),)),
        [{"headers": {"x-a": "2"}}],
        [{}, {"headers": {"x-a": ""}}],
    ),
    (
        "principals",
        HttpMatch(
            l4=Match(
                principals=(
                    *texts(EXACT, "cluster.local/ns/shop/sa/shopper"),
                    *texts(SUFFIX, "/sa/auditor"),
                )
            )
        ),
        [{}, {"who": account("auditor", "x")}],
        [{"who": "shopper2"}, {"who": "admin"}],
    ),
    (
        "not principals",
        HttpMatch(l4=Match(not_principals=texts(PREFIX, "cluster.local/ns/shop/sa/ad"))),
        [{}],
        [{"who": "admin"}],
    ),
    (
        "namespaces",
        HttpMatch(
            l4=Match(
                namespaces=(
                    *texts(EXACT, "sho", "a.b"),
                    *texts(PREFIX, "pre", "s"),
                    *texts(SUFFIX, "-end", "ns"),
                )
            )
        ),
        [
            {"who": account("x", each)}
            for each in ("sho", "a.b", "prefix", "s", "sa", "the-end", "ns", "xns")
        ],
        [{"who": account("x", each)} for each in ("aXb", "xpre", "the-end-x", "x")],
    ),
    (
        "a namespace that is called as a part of an identity",
        HttpMatch(l4=Match(namespaces=(*texts(PREFIX, "sa"), *texts(SUFFIX, "s")))),
        [{"who": account("x", each)} for each in ("sab", "xs")],
        [{"who": account("x", "n")}, {"who": account("s", "nx")}],
    ),
    (
        "service accounts",
        HttpMatch(l4=Match(service_accounts=(ServiceAccountMatch("shop", "shopper"),))),
        [{}],
        [{"who": "a-shopper"}, {"who": account("shopper", "a-shop")}],
    ),
    (
        "source addresses",
        HttpMatch(l4=Match(source_ips=(parse_block("127.0.0.1"),))),
        [{}, {"headers": {"x-forwarded-for": "10.9.9.9"}}],
        [],
    ),
    (
        "other source addresses",
        HttpMatch(l4=Match(not_source_ips=(parse_block("127.0.0.0/8"),))),
        [],
        [{}, {"headers": {"x-forwarded-for": "10.9.9.9"}}],
    ),
    ("ports", HttpMatch(l4=Match(destination_ports=(80,))), [{}], []),
    ("other ports", HttpMatch(l4=Match(destination_ports=(81,))), [], [{}]),
    ("destinations", HttpMatch(l4=Match(destination_ips=(parse_block(VIP),))), [{}], []),
]


@pytest.mark.parametrize(
    ("match", "good", "bad"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_field_allows_and_denies(
    judged: Any, match: HttpMatch, good: list[dict[str, Any]], bad: list[dict[str, Any]]
) -> None:
    request = judged(policy(Action.ALLOW, match))
    for each in good:
        assert request(**each).status == 200, each
    for each in bad:
        assert request(**each).status == 403, each
    request = judged(policy(Action.DENY, match))
    for each in good:
        assert request(**each).status == 403, each
    for each in bad:
        assert request(**each).status == 200, each


@pytest.mark.parametrize("trick", ["/admin%2fx", "/x/..%2fadmin", "/x%5cadmin"])
def test_escaped_slashes_are_refused(judged: Any, trick: str) -> None:
    request = judged(policy(Action.DENY, HttpMatch(paths=texts(PREFIX, "/admin"))))
    assert request(trick).status == 400


def test_one_of_two_headers_is_enough_to_deny(judged: Any) -> None:
    match = HttpMatch(headers=(ValueMatch(("x-a",), texts(EXACT, "1")),))
    request = judged(policy(Action.DENY, match))
    assert request(headers=(("x-a", "2"), ("x-a", "1"))).status == 403


def test_deny_comes_before_allow_and_no_allow_is_no(judged: Any) -> None:
    anything = HttpMatch(paths=texts(PREFIX, "/"))
    request = judged(
        policy(Action.ALLOW, anything, name="shop/allow"),
        policy(Action.DENY, HttpMatch(paths=texts(EXACT, "/no")), name="shop/deny"),
    )
    assert request("/yes").status == 200
    assert request("/no").status == 403
    assert judged(HttpPolicy("shop/nobody", Action.ALLOW, ()))().status == 403
    assert judged(HttpPolicy("shop/nothing", Action.DENY, ()))().status == 200
    assert judged(policy(Action.ALLOW, HttpMatch(), name="shop/empty"))().status == 403
    assert judged(policy(Action.ALLOW, name="shop/all"))().status == 200
    assert judged(policy(Action.DENY, name="shop/all"))().status == 403


def test_clauses_of_one_rule_hold_together_and_rules_are_alternatives(judged: Any) -> None:
    admin = HttpMatch(l4=Match(principals=texts(SUFFIX, "/sa/admin")))
    reads, tagged = HttpMatch(methods=texts(EXACT, "GET")), HttpMatch(paths=texts(PREFIX, "/t"))
    rules = (
        HttpPolicyRule((HttpClause((admin,)),)),
        HttpPolicyRule(
            (HttpClause((reads,)), HttpClause((tagged, HttpMatch(paths=texts(EXACT, "/u")))))
        ),
    )
    request = judged(HttpPolicy("shop/p", Action.ALLOW, rules))
    assert request("/x", who="admin", method="POST").status == 200
    assert request("/t").status == request("/u").status == 200
    assert request("/x").status == request("/t", method="POST").status == 403


def test_a_clause_that_mixes_source_and_request(judged: Any) -> None:
    mixed = HttpClause(
        (
            HttpMatch(l4=Match(principals=texts(SUFFIX, "/sa/admin"))),
            HttpMatch(methods=texts(EXACT, "GET")),
        )
    )
    request = judged(HttpPolicy("shop/p", Action.ALLOW, (HttpPolicyRule((mixed,)),)))
    assert request(who="admin", method="POST").status == request().status == 200
    assert request(method="POST").status == 403


def test_a_dry_run_enforces_nothing_and_is_logged(judged: Any, shop: Shop) -> None:
    match = HttpMatch(paths=texts(PREFIX, "/dry"))
    request = judged(policy(Action.DENY, match, name="shop/try", dry_run=True))
    assert request("/dry/run").status == 200

    def line() -> dict[str, Any]:
        return next((each for each in shop.bed.log() if each.get("path") == "/dry/run"), {})

    eventually(lambda: bool(line()), "its line is there")
    assert line()["dry_run.deny"] == "shop/try[0]"


def test_a_refusal_names_the_policy(judged: Any, shop: Shop) -> None:
    request = judged(policy(Action.DENY, HttpMatch(paths=texts(PREFIX, "/named")), name="shop/why"))
    assert request("/named").status == 403

    def line() -> dict[str, Any]:
        return next((each for each in shop.bed.log() if each.get("path") == "/named"), {})

    eventually(lambda: bool(line()), "its line is there")
    assert "shop/why[0]" in line()["details"]
    assert line()["src.identity"] == str(account("shopper"))


def test_a_policy_holds_for_the_next_request_of_an_open_connection(judged: Any, shop: Shop) -> None:
    judged()
    with shop.bed.tunnel("shopper", f"{VIP}:80") as tunnel:
        assert ask(tunnel).status == 200
        judged(policy(Action.DENY, HttpMatch(methods=texts(EXACT, "GET"))))
        assert ask(tunnel).status == 403


def test_what_a_token_says_allows_nothing_and_denies_all(judged: Any) -> None:
    match = HttpMatch(request_principals=texts(PRESENCE, ""))
    assert judged(policy(Action.ALLOW, match))().status == 403
    assert judged(policy(Action.DENY, match))().status == 403
