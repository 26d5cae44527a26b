"""Lookups over pods: they follow each change, and what is gone leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

from agent.enrol.index import PodIndex
from agent.enrol.plan import Capture, PodFacts

POD = PodFacts("a", 100, enrolled=True)
CAPTURED = replace(POD, capture=Capture(100, ()))


def test_a_pod_is_found_by_the_namespace_it_lives_in() -> None:
    index = PodIndex()
    index.changed(None, POD)
    assert index.tenant(100) == "a"
    index.changed(POD, replace(POD, netns=200))
    assert (index.tenant(100), index.tenant(200)) == (None, "a")
    index.changed(replace(POD, netns=200), None)
    assert index.tenant(200) is None


def test_a_later_tenant_is_not_put_out_by_an_earlier_one() -> None:
    index = PodIndex()
    index.changed(None, POD)
    index.changed(None, replace(POD, uid="b"))
    index.changed(POD, None)
    assert index.tenant(100) == "b"


def test_a_report_is_made_anew_only_when_it_differs() -> None:
    index = PodIndex()
    index.changed(None, CAPTURED)
    first = index.report
    assert CAPTURED.capture is not None
    assert first == {"a": CAPTURED.capture.addresses}
    index.changed(CAPTURED, replace(CAPTURED, withdrawn_s=1.0))
    assert index.report is first
    moved = replace(CAPTURED, capture=replace(CAPTURED.capture, addresses=()))
    index.changed(CAPTURED, moved)
    assert index.report == {"a": ()}
    index.changed(moved, replace(CAPTURED, withdrawn_s=1.0))
    assert index.report == first
    assert (index.captured, index.withdrawn) == ({"a"}, {"a"})
    leaving = replace(CAPTURED, enrolled=False)
    index.changed(CAPTURED, leaving)
    assert index.report == {}
    assert index.captured == {"a"}
    index.changed(leaving, None)
    assert (index.captured, index.withdrawn, index.report) == (set(), set(), {})
