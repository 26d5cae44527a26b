"""Envoy's log: cut into lines, with a level each, and bounded."""

from __future__ import annotations

import logging

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.waypoint.log_lines import (
    LINE_BYTES_MAX,
    LINES_BURST,
    LINES_PER_S,
    Line,
    LineBudget,
    LineSplitter,
    line_of,
)


def test_a_line_has_its_level_component_and_text() -> None:
    assert line_of(b"warning config a b") == Line(logging.WARNING, "config", "a b")
    assert line_of(b"critical main x") == Line(logging.CRITICAL, "main", "x")


def test_a_line_of_another_form_is_an_error_as_it_stands() -> None:
    for raw in (b"Segmentation fault, suspect faulting address 0x0", b"warning", b"", b"\xff"):
        assert line_of(raw) == Line(logging.ERROR, "", raw.decode("utf-8", "replace"))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_lines_are_the_same_however_the_bytes_come(pieces: list[bytes]) -> None:
    whole, parts = LineSplitter(), LineSplitter()
    data = b"".join(pieces)
    found = [line for piece in pieces for line in parts.feed(piece)]
    assert found == whole.feed(data)
    assert b"\n".join(found) == b"\n".join(
        line for line in data[: data.rfind(b"\n") + 1].split(b"\n") if line
    )


def test_a_line_without_end_is_cut_and_its_rest_left_out() -> None:
    splitter = LineSplitter()
    long = b"x" * (LINE_BYTES_MAX + 1)
    assert splitter.feed(long) == [b"x" * LINE_BYTES_MAX]
    assert splitter.feed(long) == []
    assert splitter.feed(b"rest\nnext\n") == [b"next"]


def test_a_flood_is_cut() -> None:
    budget = LineBudget(0.0)
    assert sum(budget.admits(0.0) for _ in range(2 * LINES_BURST)) == LINES_BURST
    assert budget.dropped == LINES_BURST
    assert sum(budget.admits(1.0) for _ in range(2 * LINES_BURST)) == LINES_PER_S
