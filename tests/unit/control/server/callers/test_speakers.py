"""Subjects and the accounts they name; an account is a waypoint by the Gateways that there are."""

from __future__ import annotations

import pytest

from control.model.route import WaypointKey
from control.server.callers.speakers import account_from, account_of, subject, waypoint_of

KEY = WaypointKey("shop", "way.point")


def test_a_subject_is_read_as_it_is_written() -> None:
    assert account_of(subject(*KEY)) == KEY
    assert account_from("shop/way.point") == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shop",
        "/w",
        "shop/",
        "shop/w/x",
        "Shop/w",
        "shop.x/w",
        "shop/-w",
        "shop/w\n",
        "shop/w:x",
        f"{'s' * 64}/w",
        f"shop/{'w' * 254}",
    ],
)
def test_what_no_account_can_be_called_is_none(text: str) -> None:
    assert account_from(text) is None
    assert account_of("system:serviceaccount:" + text.replace("/", ":")) is None


@pytest.mark.parametrize("text", ["shop:w", "system:node:n1", "system:serviceaccount:shop"])
def test_subjects_that_are_no_accounts_are_none(text: str) -> None:
    assert account_of(text) is None


def test_an_account_is_a_waypoints_while_there_is_such_a_gateway() -> None:
    live = {KEY}
    assert waypoint_of(subject(*KEY), live.__contains__) == KEY
    assert waypoint_of(subject("shop", "web"), live.__contains__) is None
    assert waypoint_of("nobody", lambda _: True) is None
    live.clear()
    assert waypoint_of(subject(*KEY), live.__contains__) is None
