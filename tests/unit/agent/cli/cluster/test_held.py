"""Pods that keep a node from being cleaned, and their words."""

from __future__ import annotations

import pytest

from agent.cli.cluster.held import NotReleased, held
from agent.enrol.plan import PodState

CAPTURED, LINGERING = NotReleased(captured=1), NotReleased(lingering=1)


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        (PodState.CAPTURED, "", CAPTURED),
        (PodState.RELEASING, "reporting", CAPTURED),
        (PodState.RELEASING, "draining", CAPTURED),
        (PodState.NOT_ENROLLED, "lingering", LINGERING),
        (PodState.NOT_ENROLLED, "", NotReleased()),
        (PodState.PENDING, "no_intent", NotReleased()),
        (PodState.FAILED, "ztunnel_refused", NotReleased()),
    ],
)
def test_a_pod_counts_until_its_ztunnel_has_dropped_it(
    state: PodState, reason: str, expected: NotReleased
) -> None:
    assert held([{"state": str(state), "reason": reason}]) == expected


def test_an_agent_without_reasons_is_understood() -> None:
    assert held([{"state": "captured"}, {"state": "not_enrolled"}]) == CAPTURED


def test_the_counts_are_told_in_words() -> None:
    assert str(NotReleased()) == ""
    assert str(NotReleased(2, 1)) == (
        "2 pods are still captured; 1 pod is released, with time for open connections to end"
    )
