"""A node that fills the log fills its own share of it."""

from __future__ import annotations

import logging

import pytest

from control.server.callers import caller_lines
from control.server.callers.budget import TOLD, node_tenant
from control.server.callers.caller_lines import CallerLines
from tests.support.clock import FakeClock

LOG = logging.getLogger("xds")


def test_lines_of_a_tenant_are_sampled_and_the_next_one_counts_those_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    lines = CallerLines(LOG, clock)
    with caplog.at_level(logging.INFO):
        for _ in range(int(TOLD.burst) + 90):
            lines.line(node_tenant("n1"), logging.INFO, "xds.connected")
        lines.line(node_tenant("n2"), logging.INFO, "xds.connected", node="n2")
        clock.pass_s(1 / TOLD.per_s)
        lines.line(node_tenant("n1"), logging.INFO, "xds.connected", node="n1")
    found = [record.fields for record in caplog.records]  # type: ignore[attr-defined]  # ours
    assert len(found) == TOLD.burst + 2
    assert found[-2:] == [{"node": "n2"}, {"node": "n1", "left_out": 90}]


def test_counts_of_no_more_tenants_are_kept_than_have_a_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caller_lines, "PACED_TENANTS_MAX", 3)
    lines = CallerLines(LOG, FakeClock())
    for number in range(5):
        for _ in range(int(TOLD.burst) + 1):
            lines.line(node_tenant(f"n{number}"), logging.DEBUG, "xds.connected")
    assert list(lines._left_out) == [node_tenant(f"n{number}") for number in (2, 3, 4)]
