"""Reasons of connections: each status has one, and only policy says DENY."""

from __future__ import annotations

import pytest

from ztunnel.refusals import Flag, Reason


@pytest.mark.parametrize("status", [100, 204, 302, 401, 404, 503, 599])
def test_every_status_has_its_reason(status: int) -> None:
    assert Reason.of_status(status).word == f"status_{status // 100}xx"


def test_only_policy_says_deny() -> None:
    denied = {each for each in Reason if each.flag is Flag.DENY}
    assert denied == {Reason.POLICY, Reason.UNKNOWN_POLICY, Reason.POLICY_CHANGED}
