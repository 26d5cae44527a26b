from __future__ import annotations

from typing import Any

from control.model.route import Destination, HttpRule, RequestMatch
from control.server.envoy import routes
from control.server.envoy.names import REQUEST_ALLOW, REQUEST_DENY
from tests.unit.control.server.envoy.worlds import front


def hosts(*rules: HttpRule) -> dict[str, list[str]]:
    """Names of the routes by host."""
    made = routes.configuration(front(rules=rules))
    return {
        each["name"]: [route["name"] for route in each["routes"]] for each in made["virtual_hosts"]
    }


def rule(name: str, *names: str, **more: Any) -> HttpRule:
    return HttpRule(name, RequestMatch(), names, (Destination("shop/web:80"),), **more)


def test_without_rules_everything_is_forwarded() -> None:
    (host,) = routes.configuration(front())["virtual_hosts"]
    (route,) = host["routes"]
    assert route["route"]["cluster"] == "shop/web:80"


def test_with_rules_the_last_route_is_404() -> None:
    assert hosts(rule("one")) == {"*": ["one", "no rule"]}
    assert hosts() == {"*": ["no rule"]}


def test_a_host_has_the_rules_that_mean_it_in_their_order() -> None:
    assert hosts(
        rule("exact", "a.shop"),
        rule("all"),
        rule("star", "*.shop"),
        rule("deeper", "*.a.shop"),
        rule("both", "b.shop", "A.shop"),
    ) == {
        "a.shop": ["exact", "all", "star", "both", "no rule"],
        "*.shop": ["all", "star", "no rule"],
        "*.a.shop": ["all", "star", "deeper", "no rule"],
        "b.shop": ["all", "star", "both", "no rule"],
        "*": ["all", "no rule"],
    }


def test_policies_ride_on_every_host() -> None:
    made = routes.configuration(front(rules=(rule("a", "a.shop"), rule("b"))))
    for host in made["virtual_hosts"]:
        assert host["typed_per_filter_config"].keys() == {REQUEST_DENY, REQUEST_ALLOW}


def test_a_key_of_requests_has_two_parts() -> None:
    made = routes.scope(front())
    assert made["key"]["fragments"] == [{"string_key": "shop/web:80"}] * 2
    assert made["route_configuration_name"] == routes.configuration(front())["name"]


def test_a_refusal_dials_nobody() -> None:
    (host,) = routes.refusal(front())["virtual_hosts"]
    assert [each["direct_response"]["status"] for each in host["routes"]] == [500]
