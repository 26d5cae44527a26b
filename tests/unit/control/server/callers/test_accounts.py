"""Service accounts of nodes: only our accounts, for our audience, bound to a pod."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.route import WaypointKey
from control.server.callers.accounts import BoundPod, TokenLife, looked_at, node_accounts, vouched
from control.server.callers.refusals import CallRefusal
from control.server.callers.speakers import subject
from control.server.callers.tokens import Unauthenticated
from tests.support.account_tokens import ACCOUNTS, ZTUNNEL, account_token, part, status


def test_accounts_are_of_the_namespace_of_the_install_or_of_their_own() -> None:
    made = node_accounts("mesh", ("z", "istio-system/ztunnel"), "tulle")
    assert made.audience == "tulle"
    assert made.subjects == {
        "system:serviceaccount:mesh:z",
        "system:serviceaccount:istio-system:ztunnel",
    }


def test_a_token_says_its_end() -> None:
    assert looked_at(account_token(100.5, iat=7), ACCOUNTS, 99.0) == TokenLife(7, 100.5)
    assert looked_at(account_token(100, aud="istio-ca"), ACCOUNTS, 99.0).expires_s == 100.0


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": 99}, CallRefusal.TOKEN_EXPIRED),
        ({"exp": None}, CallRefusal.TOKEN_MALFORMED),
        ({"exp": 10**400}, CallRefusal.TOKEN_MALFORMED),
        ({"exp": float("inf")}, CallRefusal.TOKEN_MALFORMED),
        ({"iat": 101}, CallRefusal.TOKEN_MALFORMED),
        ({"aud": ["other"]}, CallRefusal.TOKEN_AUDIENCE),
        ({"aud": []}, CallRefusal.TOKEN_AUDIENCE),
        ({"aud": "istio-ca-2"}, CallRefusal.TOKEN_AUDIENCE),
        ({"sub": ZTUNNEL + "2"}, CallRefusal.TOKEN_SUBJECT),
        ({"sub": "system:serviceaccount:shop:tulle-ztunnel"}, CallRefusal.TOKEN_SUBJECT),
        ({"sub": 7}, CallRefusal.TOKEN_MALFORMED),
    ],
)
def test_a_token_that_could_not_be_good_is_not_asked_about(
    claims: dict[str, Any], why: CallRefusal
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        looked_at(account_token(**{"expires_s": 100, **claims}), ACCOUNTS, 99.0)
    assert caught.value.why is why


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "..",
        "a.b",
        "a.b.c.d",
        f"a.{part(b'[' * 6000)}.c",
        f"a.{part(b'[1]')}.c",
        "a.\ud800.c",
    ],
)
def test_what_is_no_jwt_is_malformed(text: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        looked_at(text, ACCOUNTS, 0.0)
    assert caught.value.why is CallRefusal.TOKEN_MALFORMED


@given(st.one_of(st.text(), st.binary().map(lambda each: f"a.{part(each)}.b")))
def test_any_text_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(Unauthenticated):
        looked_at(text, ACCOUNTS, 0.0)


def test_the_api_servers_yes_names_the_pod_and_its_node() -> None:
    assert vouched(status(), ACCOUNTS) == BoundPod("tulle-system", "z1", "u1", "n1")
    assert vouched(status(node_name=[]), ACCOUNTS).node == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"authenticated": False}, CallRefusal.TOKEN_REVIEW),
        ({"audiences": []}, CallRefusal.TOKEN_AUDIENCE),
        ({"audiences": ["other"]}, CallRefusal.TOKEN_AUDIENCE),
        ({"username": "system:serviceaccount:shop:default"}, CallRefusal.TOKEN_SUBJECT),
        ({"username": ""}, CallRefusal.TOKEN_SUBJECT),
        ({"pod_name": []}, CallRefusal.TOKEN_POD),
        ({"pod_uid": ["u1", "u2"]}, CallRefusal.TOKEN_POD),
    ],
)
def test_everything_but_a_whole_yes_is_a_no(changes: dict[str, Any], why: CallRefusal) -> None:
    with pytest.raises(Unauthenticated) as caught:
        vouched(status(**changes), ACCOUNTS)
    assert caught.value.why is why


WAYPOINT = WaypointKey("shop", "waypoint")
WAYPOINTS = node_accounts("tulle-system", ("tulle-ztunnel",), "istio-ca", {WAYPOINT}.__contains__)


def test_the_account_of_a_waypoint_is_let_in_and_speaks_for_it() -> None:
    of_waypoint = subject(*WAYPOINT)
    assert looked_at(account_token(100, sub=of_waypoint), WAYPOINTS, 0.0).expires_s == 100
    assert vouched(status(username=of_waypoint), WAYPOINTS).namespace == "shop"
    assert WAYPOINTS.speaks_for(of_waypoint) == WAYPOINT
    assert WAYPOINTS.speaks_for(ZTUNNEL) is None, "that is a node's"


@pytest.mark.parametrize("name", ["default", "waypoint2", ""])
def test_an_account_beside_it_is_not(name: str) -> None:
    other = subject("shop", name)
    assert not WAYPOINTS.has(other)
    for refused in (
        lambda: looked_at(account_token(100, sub=other), WAYPOINTS, 0.0),
        lambda: vouched(status(username=other), WAYPOINTS),
    ):
        with pytest.raises(Unauthenticated) as caught:
            refused()
        assert caught.value.why is CallRefusal.TOKEN_SUBJECT
