"""Refusals of pages: each counted, a line a second of each reason."""

from __future__ import annotations

import logging

import pytest

from control.kit.page_refusals import PageRefusal, PageRefusals


def test_lines_are_sampled_and_say_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    found = PageRefusals()
    with caplog.at_level(logging.WARNING, "http"):
        for now_s in (0.0, 0.5, 0.9, 1.1):
            found.count("metrics", PageRefusal.DISPLACED, now_s, source="10.0.0.1")
        found.count("metrics", PageRefusal.SLOW_READER, 1.1)
    assert found.counts == {("metrics", "displaced"): 4, ("metrics", "slow_reader"): 1}
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [each.get("left_out") for each in fields] == [None, 2, None]
    assert {each["door"] for each in fields} == {"metrics"}
