"""The reasons: one word each, and something to do about it."""

from __future__ import annotations

import re

from agent.kubelet.reasons import Unrecognised


def test_every_reason_has_a_word_of_its_own_and_a_remedy() -> None:
    words = [each.word for each in Unrecognised]
    assert len(set(words)) == len(words)
    assert all(re.fullmatch(r"[a-z_]+", word) for word in words)
    assert all(each.meaning and each.remedy for each in Unrecognised)
