"""The next steps by track. (That they are the plan's: test_plan_runs.py.)"""

from __future__ import annotations

from dataclasses import replace

from agent.enrol.agenda import Agenda
from agent.enrol.plan import (
    AddToZtunnel,
    Capture,
    DeleteFromZtunnel,
    Handover,
    NodeFacts,
    PodFacts,
    Release,
)
from control.model.address import parse_address

NODE = NodeFacts((7,), 2.0)
ADDRESSES = (parse_address("10.0.0.1"),)
NEW = PodFacts("new", 100, ADDRESSES, enrolled=True)
GONE = PodFacts("gone", None, handovers=(Handover(7, 200),))
HELD = PodFacts("held", None, capture=Capture(300, ADDRESSES, 7))


def agenda_of(*pods: PodFacts, now_s: float = 0.0) -> Agenda:
    agenda = Agenda()
    agenda.changed(pod.uid for pod in pods)
    agenda.refresh({pod.uid: pod for pod in pods}, NODE, now_s)
    return agenda


def test_each_track_has_its_own_steps_and_a_pod_that_leaves_goes_first() -> None:
    agenda = agenda_of(NEW, GONE, HELD)
    assert agenda.kernel_steps() == [Release("held")]
    assert agenda.ztunnel_step(7) == DeleteFromZtunnel("gone", 7)
    assert agenda.ztunnel_step(8) is None
    assert len(list(agenda.steps())) == 3


def test_a_pod_is_planned_anew_only_when_it_has_changed() -> None:
    agenda = agenda_of(NEW)
    pods = {"new": replace(NEW, handovers=(Handover(7, 100),), waits=1)}
    agenda.refresh(pods, NODE, 0.0)
    assert agenda.ztunnel_step(7) == AddToZtunnel("new", 7, 100)
    agenda.changed(["new"])
    agenda.refresh(pods, NODE, 0.0)
    assert agenda.ztunnel_step(7) is None
    assert len(agenda.kernel_steps()) == 1


def test_a_forgotten_pod_has_no_step() -> None:
    agenda = agenda_of(NEW, HELD)
    agenda.changed(["new", "held"])
    agenda.refresh({}, NODE, 0.0)
    assert list(agenda.steps()) == []


def test_a_pod_that_waits_is_planned_again_when_its_time_has_come() -> None:
    failed = replace(NEW, failure="map_full", retry_s=5.0)
    agenda = agenda_of(failed)
    assert (list(agenda.steps()), agenda.next_due_s()) == ([], 5.0)
    agenda.refresh({"new": failed}, NODE, 5.0)
    assert agenda.ztunnel_step(7) == AddToZtunnel("new", 7, 100)
    assert agenda.next_due_s() is None


def test_an_alarm_that_was_replaced_is_void() -> None:
    agenda = agenda_of(replace(NEW, failure="x", retry_s=5.0))
    later = replace(NEW, failure="x", retry_s=9.0)
    agenda.changed(["new"])
    agenda.refresh({"new": later}, NODE, 0.0)
    assert agenda.next_due_s() == 9.0
