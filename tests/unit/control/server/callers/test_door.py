"""The door of every call: who gets in, and that a refusal is answered, counted and logged once."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import grpc
import pytest

from control.server.callers.door import Door
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import Caller, NodeTokens
from control.server.metrics import Metrics
from tests.support.calls import Aborted, Call
from tests.support.clock import FakeClock

SUBJECT = "system:serviceaccount:istio-system:ztunnel"
TOKENS = NodeTokens(b"k" * 32, SUBJECT, FakeClock())


@pytest.fixture
def door() -> Door:
    return Door(TOKENS, Metrics())


def admit(door: Door, call: Call, method: str = "xds") -> Caller:
    return asyncio.run(door.admit(call, method))


def count(door: Door, name: str, **labels: str) -> float | None:
    return door.metrics.registry.get_sample_value(name, labels)


def test_a_good_token_is_its_caller(door: Door) -> None:
    token = TOKENS.issue("n1", timedelta(hours=1))
    assert admit(door, Call(f"Bearer {token}")) == Caller("n1", SUBJECT)
    assert admit(door, Call(f"bearer  {token} ")) == Caller("n1", SUBJECT)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "token_missing"),
        ("Basic eDp5", "token_missing"),
        ("Bearer x.y.AAAA", "token_signature"),
        (f"Bearer {TOKENS.issue('n1', timedelta(0))}", "token_expired"),
    ],
)
def test_anybody_else_is_told_nothing_and_we_are_told_why(
    door: Door, header: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(Aborted) as ended:
        admit(door, Call(header))
    assert ended.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert ended.value.message == "unauthenticated"
    (record,) = caplog.records
    assert record.message == "xds.refused"
    assert str(record.fields["reason"]) == reason  # type: ignore[attr-defined]  # our own field
    assert count(door, "tulle_control_refused_total", method="xds", reason=reason) == 1


def test_a_header_of_bytes_is_no_token(door: Door) -> None:
    token = TOKENS.issue("n1", timedelta(hours=1))
    with pytest.raises(Aborted):
        admit(door, Call(f"Bearer {token}".encode()))


@pytest.mark.parametrize(
    ("method", "name", "labels"),
    [
        ("csr", "tulle_control_csr_total", {"result": "refused"}),
        ("report", "tulle_control_refused_total", {"method": "report"}),
    ],
)
def test_each_refusal_is_counted_where_its_method_counts(
    door: Door, method: str, name: str, labels: dict[str, str]
) -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(Aborted, match="try again") as ended:
        asyncio.run(door.refuse(Call(), method, code, "try again", CallRefusal.BUSY))
    assert ended.value.code is code
    assert count(door, name, **labels, reason="busy") == 1
