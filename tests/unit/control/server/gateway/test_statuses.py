"""Verdicts are words of the Gateway API."""

from __future__ import annotations

from control.server.gateway.statuses import RESOLVED, TAKEN


def test_what_is_in_order_says_so_in_the_words_of_its_condition() -> None:
    assert (TAKEN.is_true, TAKEN.reason) == (True, "Accepted")
    assert (RESOLVED.is_true, RESOLVED.reason) == (True, "ResolvedRefs")
