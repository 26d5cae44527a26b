"""Ages and durations as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent.cli.mesh import MeshDump
from agent.cli.views.moments import age, duration, to_the_second
from tests.unit.agent.cli.mesh_example import NOW


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (3.9, "3s"),
        (60, "1m"),
        (250, "4m10s"),
        (3600, "1h"),
        (7500, "2h5m"),
        (273_600, "3d4h"),
        (-61, "-1m1s"),
    ],
)
def test_a_duration_has_two_parts_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_counts_to_the_moment_when_the_pages_were_read() -> None:
    opened = (NOW - timedelta(seconds=61)).isoformat()
    assert age(MeshDump(NOW), opened) == "1m1s"
    assert age(MeshDump(NOW), None) is None


def test_fractions_of_a_second_are_left_out() -> None:
    assert to_the_second("2026-11-22T11:00:00.123+00:00") == "2026-11-22T11:00:00Z"
    assert to_the_second(None) is None
