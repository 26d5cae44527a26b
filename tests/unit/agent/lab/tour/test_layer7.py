"""Answers of the shop, as the step on layer 7 reads them."""

from __future__ import annotations

import math

import pytest

from agent.lab.tour import layer7
from agent.lab.tour.world import CommandResult


@pytest.mark.parametrize(
    ("out", "version", "client"),
    [
        ('{"version": "v2", "client": "10.0.0.1"}', "v2", "10.0.0.1"),
        ("{}", "", ""),
        ("RBAC: access denied", "", ""),
        ("", "", ""),
    ],
)
def test_an_answer_that_is_none_has_no_version(out: str, version: str, client: str) -> None:
    answer = CommandResult(0, out, "")
    assert layer7._version(answer) == version
    assert layer7._seen_client(answer) == client


def test_a_canary_that_works_is_within_its_bounds() -> None:
    """One of ten thousand would not be, by chance; one without weights never is."""
    mean, share = layer7.REQUESTS * 0.2, 0.2
    deviation = math.sqrt(layer7.REQUESTS * share * (1 - share))
    assert mean - 3.8 * deviation >= layer7.CANARY_LEAST
    assert mean + 3.8 * deviation <= layer7.CANARY_MOST
    assert not layer7.CANARY_LEAST <= layer7.REQUESTS / 2 <= layer7.CANARY_MOST
