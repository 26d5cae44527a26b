"""Lookups over pods: they follow each change, and what is gone leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

from agent.enrol.index import PodIndex
from agent.enrol.plan import Capture, Handover, PodFacts

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
    index.changed(CAPTURED, replace(CAPTURED, hbone=True))
    assert index.report is first
    moved = replace(CAPTURED, capture=replace(CAPTURED.capture, addresses=()))
    index.changed(CAPTURED, moved)
    assert index.report == {"a": ()}
    index.changed(moved, replace(CAPTURED, hbone=True))
    assert index.report == first


def test_who_is_believed_to_be_what_it_is_not() -> None:
    index = PodIndex()
    index.changed(None, CAPTURED)
    assert (index.unheard, index.believed, index.announcing) == ({"a"}, set(), set())
    believed = replace(CAPTURED, hbone=True)
    index.changed(CAPTURED, believed)
    assert (index.unheard, index.believed) == (set(), {"a"})
    leaving = replace(believed, enrolled=False)
    index.changed(believed, leaving)
    assert (index.report, index.unheard, index.believed) == ({}, set(), {"a"})
    index.changed(leaving, None)
    assert (index.believed, index.report) == (set(), {})


def test_a_pod_that_is_reported_ahead_is_told_apart_until_that_is_accepted() -> None:
    ahead = replace(CAPTURED, capture=None, enrolled=True, handovers=(Handover(7, 100),))
    index = PodIndex()
    index.changed(None, ahead)
    assert index.announcing == {"a"}
    told = replace(ahead, announced_s=1.0)
    index.changed(ahead, told)
    assert (index.announcing, index.announced) == (set(), {"a"})
    index.changed(told, None)
    assert index.announced == set()
    index.changed(None, ahead)
    index.changed(ahead, None)
    assert index.announcing == set()
