"""The ledger's flows: told to the current ztunnel, cut by it, and bounded."""

from __future__ import annotations

from agent.direct import commands as do
from agent.direct.flows import UNDER_WAY_MAX
from control.wire import direct as wire
from tests.unit.agent.direct.desk import (
    A4,
    B4,
    NEW_PID,
    Desk,
    S,
    event,
)


def test_flows_are_told_to_the_current_ztunnel_and_cut_by_it(desk: Desk) -> None:
    desk.do(desk.ledger.flow_events([event(7)], 1.0))
    assert desk.sent[1][-1]["flows"][0]["id"] == 7
    desk.say(1, wire.Cut(7))
    (cut,) = desk.take()
    assert isinstance(cut, do.Destroy)
    assert cut.flow.source == "a"
    desk.say(1, wire.Cut(8))
    assert desk.take() == []
    assert desk.ignored() == {"flow_over": 1}


def test_an_old_ztunnel_cuts_nothing(desk: Desk) -> None:
    desk.do(desk.ledger.flow_events([event(7)], 1.0))
    desk.join(2, pid=300)
    desk.say(2, wire.Cut(7))
    assert desk.take() == []


def test_flows_without_a_ztunnel_are_kept_for_the_next_one(desk: Desk) -> None:
    desk.do(desk.ledger.left(1, 1.0))
    desk.do(desk.ledger.flow_events([event(7)], 1.0))
    desk.join(2)
    assert [line["kind"] for line in desk.sent[2]] == ["hello"]  # it may know no pods yet
    desk.say(2, wire.Replay())
    assert desk.sent[2][-1]["flows"][0]["id"] == 7


def test_who_asked_before_it_counted_is_told_when_it_does(desk: Desk) -> None:
    desk.do(desk.ledger.flow_events([event(7)], 1.0))
    desk.join(2, pid=300)
    desk.say(2, wire.Replay())
    assert len(desk.sent[2]) == 1
    desk.do(desk.ledger.newest(300, 1.0))
    assert desk.sent[2][-1]["flows"][0]["id"] == 7


def test_a_full_table_stops_the_direct_path_until_there_is_room() -> None:
    desk = Desk(flows_max=10)
    desk.do(desk.ledger.newest(NEW_PID, 1.0))
    desk.join(1)
    desk.capture("a", 11, A4)
    desk.capture("b", 12, B4)
    desk.renew(10.0)
    desk.do(desk.ledger.flow_events([event(number) for number in range(10)], 1.0))
    assert not desk.runs_at(10.0)
    desk.renew(10.5)
    assert not desk.runs_at(10.5)
    assert desk.ledger.reason(0) == "flows_full"
    desk.do(desk.ledger.flow_events([event(3, is_closed=True)], 1.0))
    desk.renew(11.0)
    assert desk.runs_at(11.0)


def test_what_finds_no_room_in_the_list_is_ended_at_once() -> None:
    desk = Desk(flows_max=2)
    desk.capture("a", 11, A4)
    desk.capture("b", 12, B4)
    room = 2 + UNDER_WAY_MAX
    commands = desk.ledger.flow_events([event(number) for number in range(room + 1)], 1.0)
    ended = [each.flow.report.id for each in commands if isinstance(each, do.Destroy)]
    assert ended == [room]


def test_bytes_are_told_to_the_current_one(desk: Desk) -> None:
    desk.do(desk.ledger.flow_events([event(7)], 1.0))
    desk.do(desk.ledger.moved([(7, 1, 2)]))
    assert desk.sent[1][-1] == {"kind": "moved", "flows": [[7, 1, 2]]}


# To show


def test_why_nothing_goes_direct(desk: Desk) -> None:
    assert desk.ledger.reason(11 * S) == ""
    assert desk.ledger.reason(12 * S) == "lease_over"
    desk.do(desk.ledger.newest(300, 1.0))
    assert desk.ledger.reason(11 * S) == "not_newest"
    assert desk.ledger.ztunnel_generation is None
