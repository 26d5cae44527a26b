"""Defaults of routes."""

from __future__ import annotations

from control.model.route import NO_CHANGE, HttpRule, PathKind, RequestMatch, WaypointKey


def test_a_waypoint_is_shown_as_its_gateway_is_named() -> None:
    assert str(WaypointKey("shop", "way")) == "shop/way"


def test_a_rule_that_says_nothing_matches_everything_and_goes_nowhere() -> None:
    rule = HttpRule("a")
    assert rule.match == RequestMatch("/", PathKind.PREFIX)
    assert (rule.destinations, rule.redirect, rule.request_headers) == ((), None, NO_CHANGE)
    assert (rule.timeout_s, rule.retry) == (None, None)
