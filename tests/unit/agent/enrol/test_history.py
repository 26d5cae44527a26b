"""States of pods as they were shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.enrol.history import History
from agent.enrol.plan import NodeFacts, PodFacts, PodState

NODE = NodeFacts((), 2.0)
NOW = datetime.fromtimestamp(0, UTC)
POD = PodFacts("a", 100, enrolled=False)


def test_only_a_changed_state_is_news() -> None:
    history = History()
    history.touched(["a"])
    assert history.observe({"a": POD}, NODE, NOW) == [("a", PodState.NOT_ENROLLED, "")]
    later = NOW + timedelta(seconds=1)
    history.touched(["a"])
    assert history.observe({"a": POD}, NODE, later) == []
    assert history.since("a") == NOW
    gone = PodFacts("a", None)
    history.touched(["a"])
    assert history.observe({"a": gone}, NODE, later) == [
        ("a", PodState.RELEASING, "namespace_gone")
    ]
    assert history.since("a") == later


def test_a_forgotten_pod_is_shown_no_more() -> None:
    history = History()
    history.touched(["a"])
    history.forgotten("a")
    assert history.observe({}, NODE, NOW) == []
    assert history.since("a") is None
