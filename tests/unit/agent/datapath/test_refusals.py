"""Refusals of the kernel half: every counter of one has a meaning, and only growth is told."""

from __future__ import annotations

from agent.datapath.refusals import REFUSALS, increased
from bpf.layout import Counter

# Counters with such a name that refuse nothing: the connection goes another way.
_NO_REFUSAL = {Counter.DESTINATION_MISSING, Counter.FLOW_LOST, Counter.SHORTCUT_FULL}


def test_every_refusal_has_a_meaning() -> None:
    words = ("denied", "refused", "dropped", "stale", "unvouched", "strict", "failed")
    named = {each for each in Counter if any(word in each.name.lower() for word in words)}
    assert named - _NO_REFUSAL == set(REFUSALS)


def test_only_what_has_grown_is_told() -> None:
    before = {"inbound_strict": 3, "inbound_stale": 1, "captured_v4": 0}
    now = {"inbound_strict": 5, "inbound_stale": 1, "captured_v4": 9, "denied_closed": 1}
    assert increased(before, now) == {"inbound_strict": 2, "denied_closed": 1}
    assert increased({}, {}) == {}
