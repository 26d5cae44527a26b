"""Node tokens: only what we signed, for us, in time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import ConfigError
from control.model.route import WaypointKey
from control.server.callers.budget import Tenant, node_tenant, source_tenant
from control.server.callers.refusals import CallRefusal
from control.server.callers.revocations import Revocations, whole_node
from control.server.callers.speakers import account_of
from control.server.callers.tokens import (
    OVERTIME_S,
    Caller,
    NodeTokens,
    Unauthenticated,
    bearer_token,
)
from tests.support.clock import FakeClock

KEY = b"k" * 32
STRANGER = source_tenant("10.0.0.1")
SUBJECT = "system:serviceaccount:istio-system:ztunnel"


def tokens(clock: FakeClock | None = None, key: bytes = KEY) -> NodeTokens:
    return NodeTokens(key, SUBJECT, clock or FakeClock())


def check(token: str, clock: FakeClock | None = None) -> Caller:
    return asyncio.run(tokens(clock).authenticate(token, STRANGER))


def why(token: str, clock: FakeClock | None = None) -> str:
    with pytest.raises(Unauthenticated) as caught:
        check(token, clock)
    return caught.value.why.word


def forge(claims: Any, header: Any = None, key: bytes = KEY) -> str:
    parts = [header or {"alg": "HS256", "typ": "JWT"}, claims]
    text = ".".join(
        base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts
    )
    signature = hmac.digest(key, text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def respell(token: str) -> str:
    """Spell the same signature differently: the last letter carries two bits that nothing reads."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]


GOOD = {"aud": "istio-ca", "sub": SUBJECT, "node": "n1", "exp": 99999999999}


def test_a_token_says_its_node_until_it_expires() -> None:
    clock = FakeClock()
    token = tokens(clock).issue("n1", timedelta(hours=1))
    assert check(token, clock) == Caller("n1", SUBJECT)
    clock.pass_s(3600)
    assert why(token, clock) == "token_expired"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (forge(GOOD, key=b"x" * 32), "token_signature"),
        (forge({**GOOD, "aud": "other"}), "token_audience"),
        (forge({**GOOD, "sub": "other"}), "token_subject"),
        (forge({**GOOD, "node": ""}), "token_node"),
        (forge({**GOOD, "node": ["n1"]}), "token_node"),
        (forge({**GOOD, "exp": "never"}), "token_expired"),
        (forge({}), "token_expired"),
        (forge([]), "token_malformed"),
        (forge(GOOD, {"alg": "none"}), "token_header"),
        (forge(GOOD, {"alg": "HS256", "typ": "JWT", "kid": "x"}), "token_header"),
        (forge(GOOD).rpartition(".")[0] + ".", "token_signature"),
        ("", "token_signature"),
        ("a.b.c!", "token_malformed"),
        ("x" * 9000, "token_too_long"),
        (f"{forge(GOOD)}=", "token_malformed"),
        (f"{forge(GOOD)}==", "token_malformed"),
        (respell(forge(GOOD)), "token_malformed"),
    ],
)
def test_everything_else_is_refused(token: str, reason: str) -> None:
    assert why(token) == reason


@given(st.text(max_size=60))
def test_any_text_is_refused_without_a_crash(text: str) -> None:
    for token in (text, f"{forge(GOOD)}{text}" if text else "", f"{text}.{text}.{text}"):
        why(token)


def test_a_short_key_is_refused_and_no_key_is_shown() -> None:
    with pytest.raises(ValueError):
        tokens(key=b"short")
    assert "kkk" not in repr(tokens())


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer  ", "Basic x", "x"])
def test_not_a_bearer(header: str) -> None:
    with pytest.raises(Unauthenticated):
        bearer_token(header)


def test_a_bearer() -> None:
    assert bearer_token("Bearer a.b.c") == "a.b.c"
    assert bearer_token("bearer  a ") == "a"


def test_a_revoked_token_is_refused_and_a_new_one_is_good() -> None:
    clock, revoked = FakeClock(), Revocations()
    subject = NodeTokens(KEY, SUBJECT, clock, lambda: revoked)
    stolen, other = (subject.issue("n1", timedelta(hours=each)) for each in (1, 2))
    caller = asyncio.run(subject.authenticate(stolen, STRANGER))
    assert not subject.is_revoked(caller)
    revoked = subject.revocation(stolen)
    with pytest.raises(Unauthenticated) as caught:
        asyncio.run(subject.authenticate(stolen, STRANGER))
    assert caught.value.why.word == "token_revoked"
    assert subject.is_revoked(caller)
    assert not subject.is_revoked(Caller("n1", SUBJECT)), "by another's word"
    assert asyncio.run(subject.authenticate(other, STRANGER)).node == "n1"
    revoked = whole_node("n1", clock, 0)
    with pytest.raises(Unauthenticated):
        asyncio.run(subject.authenticate(other, STRANGER))
    fresh = subject.issue("n1", timedelta(hours=1))  # in the same second
    assert asyncio.run(subject.authenticate(fresh, STRANGER)).node == "n1"
    assert (
        asyncio.run(subject.authenticate(subject.issue("n2", timedelta(hours=1)), STRANGER)).node
        == "n2"
    )


def test_a_call_outlives_its_token_by_a_moment_only() -> None:
    clock = FakeClock()
    subject = tokens(clock)
    caller = asyncio.run(
        subject.authenticate(subject.issue("n1", timedelta(seconds=100)), STRANGER)
    )
    clock.pass_s(100 + OVERTIME_S - 2)
    assert subject.why_over(caller) is None
    clock.pass_s(3)
    assert subject.why_over(caller) is CallRefusal.TOKEN_EXPIRED
    assert subject.why_over(Caller("n1", SUBJECT)) is None, "a token without an end that we know"


def test_a_token_without_a_time_of_issue_is_revoked_with_its_node() -> None:
    revoked = Revocations(nodes={"n1": 1})
    subject = NodeTokens(KEY, SUBJECT, FakeClock(), lambda: revoked)
    for claims in (GOOD, {**GOOD, "iat": "then"}):
        with pytest.raises(Unauthenticated):
            asyncio.run(subject.authenticate(forge(claims), STRANGER))


@pytest.mark.parametrize(
    "token", ["", "x", forge(GOOD, key=b"x" * 32), forge({**GOOD, "exp": "5"})]
)
def test_only_a_token_that_could_be_used_is_revoked(token: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens().revocation(token)


def test_a_token_that_is_over_by_the_clock_can_be_revoked() -> None:
    """The clock may have been set."""
    clock = FakeClock()
    subject = tokens(clock)
    stolen = subject.issue("n1", timedelta(hours=1))
    clock.jump_s(3 * 86400)
    with pytest.raises(Unauthenticated):
        asyncio.run(subject.authenticate(stolen, STRANGER))
    revoked = subject.revocation(stolen)
    clock.jump_s(-3 * 86400)
    caller = asyncio.run(subject.authenticate(stolen, STRANGER))
    assert revoked.covers("n1", caller.issued_s, caller.mark)


@pytest.mark.parametrize("node", ["", "a/b", "../n1", "n1\n"])
def test_a_name_that_no_node_can_have_gets_no_token(node: str) -> None:
    with pytest.raises(ConfigError, match="not a node's name"):
        tokens().issue(node, timedelta(days=1))


WAYPOINT = WaypointKey("shop", "waypoint")


def test_a_waypoints_token_speaks_for_it_alone_while_there_is_a_gateway() -> None:
    live = {WAYPOINT}
    subject = NodeTokens(KEY, SUBJECT, FakeClock(), is_waypoint=live.__contains__)
    token = subject.issue("n1", timedelta(hours=1), WAYPOINT)
    caller = asyncio.run(subject.authenticate(token, STRANGER))
    assert caller == Caller("n1", "system:serviceaccount:shop:waypoint", waypoint=WAYPOINT)
    assert caller.tenant not in (node_tenant("n1"), Tenant("node", "shop"))
    assert caller.words == {"node": "n1", "waypoint": "shop/waypoint"}
    assert subject.why_over(caller) is None
    live.clear()
    assert subject.why_over(caller) is CallRefusal.TOKEN_SUBJECT, "calls under way end too"
    with pytest.raises(Unauthenticated) as caught:
        asyncio.run(subject.authenticate(token, STRANGER))
    assert caught.value.why is CallRefusal.TOKEN_SUBJECT


def test_a_nodes_revocation_takes_its_waypoints_tokens_along() -> None:
    revoked = Revocations()
    subject = NodeTokens(KEY, SUBJECT, FakeClock(), lambda: revoked, lambda _: True)
    caller = asyncio.run(
        subject.authenticate(subject.issue("n1", timedelta(hours=1), WAYPOINT), STRANGER)
    )
    revoked = Revocations(nodes={"n1": caller.issued_s})
    assert subject.why_over(caller) is CallRefusal.TOKEN_REVOKED
    fresh = subject.issue("n1", timedelta(hours=1), WAYPOINT)
    assert asyncio.run(subject.authenticate(fresh, STRANGER)).waypoint == WAYPOINT


def test_waypoints_of_a_node_and_nodes_of_a_waypoint_pay_apart() -> None:
    tenants = [
        Caller(node, "s", waypoint=key).tenant
        for node in ("n1", "n2")
        for key in (None, WAYPOINT, WaypointKey("shop", "other"))
    ]
    assert len(set(tenants)) == 6


def test_the_ztunnels_account_is_no_waypoints() -> None:
    ztunnels = account_of(SUBJECT)
    assert ztunnels is not None
    with pytest.raises(ConfigError, match="account of ztunnels"):
        tokens().issue("n1", timedelta(hours=1), ztunnels)
