"""Each kind of match and each filter of a rule, by a real Envoy that is told what we encode."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from control.model.route import (
    Cors,
    Destination,
    HeaderChange,
    HttpRule,
    Mirror,
    PathKind,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    TextMatch,
    TextMatchKind,
)
from tests.interop.waypoint.conftest import Shop
from tests.support.engine.tunnel_bed import eventually
from tests.support.peers.tunnel_client import Answer, ask
from tests.support.waypoint.bed import by_name, front

VIP = "10.96.0.10"
V1, V2, V3 = (Destination(f"shop/{name}:80") for name in ("v1", "v2", "v3"))


ANYTHING = RequestMatch()


def rule(match: RequestMatch = ANYTHING, *destinations: Destination, **more: Any) -> HttpRule:
    return HttpRule("shop/route/0/0", match, destinations=destinations, **more)


def path(text: str, kind: PathKind = PathKind.PREFIX) -> RequestMatch:
    return RequestMatch(text, kind)


@pytest.fixture
def asked(shop: Shop) -> Any:
    """Apply rules to the one front and ask once they are there."""
    number = iter(range(1_000_000))

    def apply(*rules: HttpRule) -> Any:
        mark = f"/applied-{next(number)}-{id(rules)}"
        last = rule(path(mark, PathKind.EXACT), redirect=Redirect(path="/"))
        made = front("shop/reviews:80", VIP, rules=(last, *rules))
        shop.bed.apply(by_name(made))
        eventually(lambda: is_there(mark), "the rules are in force")

        def request(target: str = "/", **more: Any) -> Answer:
            with shop.bed.tunnel("shopper", f"{VIP}:80") as tunnel:
                return ask(tunnel, target, **more)

        return request

    def is_there(mark: str) -> bool:
        with shop.bed.tunnel("shopper", f"{VIP}:80") as tunnel:
            return tunnel.status == 200 and ask(tunnel, mark).status == 302

    yield apply
    assert shop.bed.ads.nacks == []


def test_paths_by_whole_segments_exactly_and_by_regex(asked: Any) -> None:
    request = asked(
        rule(path("/exact", PathKind.EXACT), V1),
        rule(path("/pre"), V2),
        rule(path("/[a-c]+\\d", PathKind.REGEX), V3),
        rule(path("/long/[a-z]{40,80}", PathKind.REGEX), V3),
    )
    for target, who in (
        ("/exact", "v1"),
        ("/exact?q=1", "v1"),
        ("/pre", "v2"),
        ("/pre/fix", "v2"),
        ("/pre?x", "v2"),
        ("/abc1", "v3"),
        ("/long/" + "z" * 50, "v3"),
    ):
        assert request(target).who == who, target
    for target in ("/exact/", "/prefix", "/abc", "/abc1/x", "/"):
        assert request(target).status == 404, target


def test_headers_methods_and_query_have_to_hold_together(asked: Any) -> None:
    request = asked(
        rule(RequestMatch(headers=(TextMatch("x-user", "jason"),)), V1),
        rule(RequestMatch(headers=(TextMatch("x-v", "a.c", TextMatchKind.REGEX),)), V2),
        rule(RequestMatch(method="POST", query=(TextMatch("v", "2"),)), V3),
    )
    assert request(headers={"X-User": "jason"}).who == "v1"
    assert request(headers={"x-user": "jasonx"}).status == 404
    assert request(headers={"x-v": "abc"}).who == "v2"
    assert request(headers={"x-v": "abcd"}).status == 404
    assert request("/?v=2", method="POST").who == "v3"
    assert request("/?v=2").status == 404
    assert request("/?v=22", method="POST").status == 404


def test_weights_are_kept(asked: Any, shop: Shop) -> None:
    asked(rule(path("/"), Destination(V1.backend, 80), Destination(V2.backend, 20)))
    with shop.bed.tunnel("shopper", f"{VIP}:80") as tunnel:
        count = Counter(ask(tunnel).who for _ in range(500))
    assert 60 <= count["v2"] <= 145, count  # 100, and five times its deviation of 9
    assert count.keys() == {"v1", "v2"}


def test_a_share_that_cannot_be_had_is_answered_500(asked: Any, shop: Shop) -> None:
    asked(rule(path("/"), Destination(V1.backend, 1), Destination("", 1)))
    with shop.bed.tunnel("shopper", f"{VIP}:80") as tunnel:
        count = Counter(ask(tunnel).status for _ in range(200))
    assert count.keys() == {200, 500}
    assert 60 <= count[500] <= 140, count


def test_a_rule_without_any_destination_is_answered_500(asked: Any) -> None:
    assert asked(rule(path("/")))("/").status == 500
    assert asked(rule(path("/"), Destination(V1.backend, 0)))("/").status == 500
    assert asked(rule(path("/"), Destination("", 1)))("/").status == 500


def test_redirects(asked: Any) -> None:
    to = Redirect(301, "https", "shop.example", 8443, prefix="/new")
    request = asked(
        rule(path("/old"), redirect=to),
        rule(path("/root"), redirect=Redirect(prefix="/")),
        rule(path("/full"), redirect=Redirect(307, path="/there")),
        rule(path("/secure"), redirect=Redirect(308, "https")),
        rule(path("/host"), redirect=Redirect(303, hostname="other.example")),
    )
    answer = request("/old/x?y=1")
    assert answer.status == 301
    assert answer.headers["location"] == "https://shop.example:8443/new/x?y=1"
    for target, status, location in (
        ("/root/x", 302, "http://reviews/x"),
        ("/root", 302, "http://reviews/"),
        ("/full/x?y=1", 307, "http://reviews/there?y=1"),
        ("/secure/x", 308, "https://reviews/secure/x"),
        ("/host/x", 303, "http://other.example/host/x"),
    ):
        answer = request(target)
        assert (answer.status, answer.headers["location"]) == (status, location), target


def test_rewrites(asked: Any) -> None:
    request = asked(
        rule(path("/v1"), V1, rewrite=Rewrite("internal.shop", prefix="/api")),
        rule(path("/cut"), V1, rewrite=Rewrite(prefix="/")),
        rule(path("/a.b"), V1, rewrite=Rewrite(prefix="/")),
        rule(path("/all"), V1, rewrite=Rewrite(path="/one\\1")),
        rule(path("/"), V1, rewrite=Rewrite(prefix="/under")),
    )
    for target, seen in (
        ("/v1/books?x=1", "/api/books?x=1"),
        ("/v1", "/api"),
        ("/cut/x/y", "/x/y"),
        ("/cut", "/"),
        ("/cut?q=/z", "/?q=/z"),
        ("/a.b/x", "/x"),
        ("/axb/x", "/under/axb/x"),
        ("/all/x?q=1", "/one\\1?q=1"),
        ("/x", "/under/x"),
    ):
        assert request(target).seen["path"] == seen, target
    assert request("/v1").seen["headers"]["host"] == "internal.shop"


def test_header_changes_of_rules_and_destinations(asked: Any) -> None:
    change = HeaderChange(("x-secret",), (("x-set", "100%"),), (("x-add", "b"),))
    answer_change = HeaderChange(("server",), (("x-route", "%rule%"),))
    mine = Destination(V1.backend, request_headers=HeaderChange(set=(("x-version", "1"),)))
    request = asked(rule(path("/"), mine, request_headers=change, response_headers=answer_change))
    answer = request(headers={"x-secret": "1", "x-set": "old", "x-add": "a"})
    seen = answer.seen["headers"]
    assert "x-secret" not in seen
    assert (seen["x-set"], seen["x-version"]) == ("100%", "1")
    assert seen["x-add"] in ("a,b", "b")  # the app's server keeps the last of two lines
    assert answer.headers["x-route"] == "%rule%"
    assert "server" not in answer.headers


def test_a_mirror_gets_a_copy_and_answers_nothing(asked: Any, shop: Shop) -> None:
    request = asked(rule(path("/"), V1, mirrors=(Mirror(V2.backend), Mirror("", 1.0))))
    before = len(shop.bed.apps["v2"].seen)
    assert request("/copied").who == "v1"
    eventually(lambda: len(shop.bed.apps["v2"].seen) == before + 1, "the copy comes")
    assert shop.bed.apps["v2"].seen[-1]["path"] == "/copied"


def test_cors(asked: Any) -> None:
    cors = Cors(("https://*.shop.example", "http://exact"), ("GET",), ("x-a",), ("x-b",), 60, True)
    request = asked(rule(path("/"), V1, cors=cors))

    def preflight(origin: str) -> dict[str, str]:
        headers = {"origin": origin, "access-control-request-method": "GET"}
        found: dict[str, str] = request(method="OPTIONS", headers=headers).headers
        return found

    for origin in ("https://a.shop.example", "http://exact"):
        headers = preflight(origin)
        assert headers["access-control-allow-origin"] == origin
        assert headers["access-control-allow-methods"] == "GET"
        assert headers["access-control-max-age"] == "60"
        assert headers["access-control-allow-credentials"] == "true"
    for origin in ("https://aXshop.example", "https://evil/.shop.example", "http://exactly"):
        assert "access-control-allow-origin" not in preflight(origin), origin


def test_retries_are_counted_and_only_of_the_codes_named(asked: Any, shop: Shop) -> None:
    request = asked(rule(path("/"), V1, retry=Retry(2, (503,), 0.001)))
    for number, (codes, status) in enumerate(
        (("503 503", 200), ("503 503 503", 503), ("500", 500))
    ):
        before = len(shop.bed.apps["v1"].seen)
        answer = request(headers={"x-id": f"retry-{number}", "x-codes": codes})
        assert answer.status == status, codes
        tries = 1 if codes == "500" else 3
        assert len(shop.bed.apps["v1"].seen) == before + tries, codes


def test_timeouts_of_requests_and_tries(asked: Any, shop: Shop) -> None:
    request = asked(
        rule(path("/all"), V1, timeout_s=0.1),
        rule(path("/try"), V1, try_timeout_s=0.1),
        rule(path("/none"), V1, timeout_s=0),
    )
    assert request("/all", headers={"x-wait": "5"}).status == 504
    assert request("/try", headers={"x-wait": "5"}).status == 504
    assert request("/none", headers={"x-wait": "0.2"}).status == 200


def test_hosts_choose_among_rules(asked: Any) -> None:
    request = asked(
        rule(path("/"), V1, hosts=("one.example",)),
        rule(path("/star"), V2, hosts=("*.example",)),
        rule(path("/any"), V3),
    )
    assert request(host="one.example").who == "v1"
    assert request(host="ONE.example:80").who == "v1"
    assert request("/star", host="two.example").who == "v2"
    assert request(host="two.example").status == 404
    assert request("/any", host="two.example").who == "v3"
    assert request("/any", host="else.where").who == "v3"
    assert request("/star", host="else.where").status == 404


def test_a_regex_that_envoy_has_not_ends_one_front_alone(asked: Any, shop: Shop) -> None:
    """It would refuse the whole resource, and the front would stay as it was."""
    request = asked(rule(path("/"), V1))
    bad = front("shop/bad:80", "10.96.0.21", rules=(rule(path("/(?=a)", PathKind.REGEX), V1),))
    shop.bed.apply(by_name(bad))

    def status() -> int:
        with shop.bed.tunnel("shopper", "10.96.0.21:80") as tunnel:
            return ask(tunnel).status if tunnel.status == 200 else 0

    eventually(lambda: status() == 500, "it refuses")
    assert request().who == "v1"


def test_a_client_steers_neither_retries_nor_timeouts(asked: Any, shop: Shop) -> None:
    request = asked(rule(path("/"), V1))
    before = len(shop.bed.apps["v1"].seen)
    headers = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "5", "x-code": "503"}
    assert request(headers=headers).status == 503
    assert len(shop.bed.apps["v1"].seen) == before + 1
    slow = {"x-envoy-upstream-rq-timeout-ms": "50", "x-wait": "0.2"}
    assert request(headers=slow).status == 200


def test_without_rules_everything_goes_to_the_service(shop: Shop) -> None:
    bed = shop.bed
    bed.apply(by_name(front("shop/plain:80", "10.96.0.20", backend="shop/v2:80")))

    def who() -> str:
        with bed.tunnel("shopper", "10.96.0.20:80") as tunnel:
            return ask(tunnel).who if tunnel.status == 200 else ""

    eventually(lambda: who() == "v2", "it forwards")
