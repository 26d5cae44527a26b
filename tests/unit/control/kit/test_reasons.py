"""A reason is its word wherever it is written."""

from __future__ import annotations

from control.kit.page_refusals import PageRefusal
from control.server.callers.refusals import CallRefusal


def test_a_reason_is_written_as_its_word_and_has_a_meaning() -> None:
    for each in (*PageRefusal, *CallRefusal):
        assert f"{each}" == each.word == each.value[0]
        assert each.meaning == each.value[1]
