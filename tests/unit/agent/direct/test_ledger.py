"""The ledger of the direct path: each input, and the commands to kernel and ztunnels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.datapath.entries import LocalEndpoint
from agent.datapath.flows import FlowReport
from agent.direct import commands as do
from agent.direct.commands import Command
from agent.direct.flows import UNDER_WAY_MAX, FlowTable
from agent.direct.ledger import DirectPod, Ledger
from control.model.address import parse_address, parse_endpoint
from control.wire import direct as wire

S = 10**9
OLD_PID, NEW_PID = 100, 200
A4, B4, C4 = (parse_address(f"10.0.0.{number}") for number in (1, 2, 3))
B6 = parse_address("fd00::2")
VIP = parse_address("10.96.0.1")


class Desk:
    """A ledger and what came of it so far."""

    def __init__(self, kernel_generation: int = 0, flows_max: int = 100) -> None:
        self.flows = FlowTable(flows_max)
        self.ledger = Ledger(kernel_generation, self.flows)
        self.state = do.SetState(0, 0)
        self.sent: dict[int, list[dict[str, Any]]] = {}
        self.others: list[Command] = []
        self.do(self.ledger.start())

    def do(self, commands: list[Command]) -> list[Command]:
        for command in commands:
            match command:
                case do.SetState():
                    self.state = command
                case do.Send(peer, line):
                    self.sent.setdefault(peer, []).append(json.loads(line))
                case _:
                    self.others.append(command)
        return commands

    def take(self) -> list[Command]:
        taken, self.others = self.others, []
        return taken

    def join(self, peer: int, pid: int = NEW_PID, generation: int = 5) -> None:
        self.do(self.ledger.joined(peer, pid))
        self.say(peer, wire.ZtunnelHello(generation))

    def say(
        self, peer: int, message: wire.ZtunnelLine | wire.Unknown, now_s: float = 1.0
    ) -> list[Command]:
        return self.do(self.ledger.said(peer, message, now_s))

    def renew(self, now_s: float) -> None:
        self.do(self.ledger.renew(int(now_s * S)))

    def capture(self, uid: str, workload: int, *addresses: Any) -> None:
        self.do(self.ledger.captured(DirectPod(uid, workload, addresses)))

    def ignored(self) -> dict[str, int]:
        return dict(self.ledger.counts.ignored)

    def runs_at(self, now_s: float) -> bool:
        return self.state.lease_until_ns > now_s * S


@pytest.fixture
def desk() -> Desk:
    """One ztunnel, current, lease until 12 s; pods a and b."""
    made = Desk()
    made.do(made.ledger.newest(NEW_PID, 1.0))
    made.join(1)
    made.renew(10.0)
    made.capture("a", 11, A4)
    made.capture("b", 12, B4, B6)
    return made


def verdict(generation: int = 5, source: str = "a", destination: str = "b") -> wire.Verdict:
    return wire.Verdict(generation, source, destination, 80)


def service(*slots: wire.ShareSlot, source: str = "a") -> wire.ServiceShare:
    return wire.ServiceShare(source, VIP, 80, 10 if slots else 0, slots)


def slot(destination: str = "b", address: str = "10.0.0.2", weight: int = 1) -> wire.ShareSlot:
    return wire.ShareSlot(weight, destination, parse_endpoint(f"{address}:8080"))


def event(number: int, is_closed: bool = False, source: int = 11) -> FlowReport:
    ends = (parse_endpoint("10.0.0.1:40000"), parse_endpoint("10.0.0.2:80"))
    return FlowReport(number, is_closed, source, 12, *ends, ends[1])


# Start and hello


def test_a_new_agent_voids_what_the_last_one_wrote() -> None:
    assert Desk(kernel_generation=41).state == do.SetState(42, 0)


def test_both_say_hello_first() -> None:
    desk = Desk()
    desk.do(desk.ledger.joined(1, NEW_PID))
    assert desk.sent[1] == [{"kind": "hello", "version": 1, "lease_s": 2.0}]
    assert desk.say(1, wire.Generation(7)) == [do.Dismiss(1, "no_hello")]


def test_another_version_and_a_second_hello_are_refused() -> None:
    desk = Desk()
    desk.do(desk.ledger.newest(NEW_PID, 1.0))
    desk.do(desk.ledger.joined(1, NEW_PID))
    assert desk.say(1, wire.ZtunnelHello(5, version=2)) == [do.Dismiss(1, "version")]
    desk.join(2)
    assert desk.say(2, wire.ZtunnelHello(6)) == [do.Dismiss(2, "second_hello")]


# Lease


def test_no_lease_without_a_ztunnel_or_before_its_hello() -> None:
    desk = Desk()
    desk.renew(1.0)
    desk.do(desk.ledger.newest(NEW_PID, 1.0))
    desk.do(desk.ledger.joined(1, NEW_PID))
    desk.renew(1.0)
    assert not desk.runs_at(1.0)
    desk.say(1, wire.ZtunnelHello(5))
    assert not desk.runs_at(1.0)  # hello alone grants nothing
    desk.renew(1.0)
    assert desk.runs_at(2.9)
    assert not desk.runs_at(3.0)


def test_the_lease_grows_with_each_renewal_and_never_shrinks(desk: Desk) -> None:
    desk.renew(11.0)
    assert desk.state.lease_until_ns == 13 * S
    desk.renew(10.5)
    assert desk.state.lease_until_ns == 13 * S


def test_a_ztunnel_that_goes_ends_lease_and_generation_at_once(desk: Desk) -> None:
    before = desk.state.generation
    desk.do(desk.ledger.left(1, 1.0))
    assert desk.state == do.SetState(before + 1, 0)
    desk.renew(10.1)
    assert not desk.runs_at(10.1)
    assert desk.ledger.reason(0) == "no_ztunnel"


def test_a_ztunnel_that_zds_lost_counts_no_more(desk: Desk) -> None:
    desk.do(desk.ledger.newest(None, 1.0))
    assert not desk.runs_at(10.0)
    desk.say(1, verdict())
    assert desk.take() == []
    assert desk.ignored() == {"not_newest": 1}
    desk.do(desk.ledger.newest(NEW_PID, 1.0))
    desk.renew(11.0)
    assert desk.runs_at(11.0)


# Generations and verdicts


def test_a_verdict_is_written_under_the_kernels_number(desk: Desk) -> None:
    desk.say(1, verdict())
    assert desk.take() == [do.PutVerdict(11, 12, 80, desk.state.generation)]


def test_a_new_generation_voids_and_is_then_acknowledged(desk: Desk) -> None:
    before = desk.state
    commands = desk.say(1, wire.Generation(6))
    assert isinstance(commands[0], do.SetState)
    assert commands[1] == do.Send(1, b'{"kind":"generation","generation":6}\n')
    assert desk.state == do.SetState(before.generation + 1, before.lease_until_ns)
    desk.say(1, verdict(5))
    assert desk.take() == []
    desk.say(1, verdict(7))
    assert desk.take() == []
    desk.say(1, verdict(6))
    assert desk.take() == [do.PutVerdict(11, 12, 80, before.generation + 1)]
    assert desk.ignored() == {"stale_generation": 2}


def test_the_same_or_a_smaller_generation_is_new_as_well(desk: Desk) -> None:
    before = desk.state.generation
    desk.say(1, wire.Generation(5))
    desk.say(1, wire.Generation(2))
    assert desk.state.generation == before + 2
    desk.say(1, verdict(5))
    assert desk.take() == []


@pytest.mark.parametrize(("source", "destination"), [("x", "b"), ("a", "x")])
def test_a_verdict_about_a_stranger_is_nothing(desk: Desk, source: str, destination: str) -> None:
    desk.say(1, verdict(5, source, destination))
    assert desk.take() == []
    assert desk.ignored() == {"not_direct": 1}


def test_a_release_is_not_overtaken_by_a_verdict(desk: Desk) -> None:
    desk.do(desk.ledger.released("b"))
    desk.say(1, verdict())
    assert desk.take() == []
    desk.capture("b", 13, B4)
    desk.say(1, verdict())
    (written,) = desk.take()
    assert isinstance(written, do.PutVerdict)
    assert written.destination == 13  # the old one's verdicts are of nobody


# Two ztunnels


def test_an_upgrade_hands_over_and_the_old_one_is_only_answered(desk: Desk) -> None:
    before = desk.state.generation
    desk.join(2, pid=300, generation=1)
    assert desk.state.generation == before  # ZDS has not taken it yet
    desk.do(desk.ledger.newest(300, 1.0))
    assert desk.state == do.SetState(before + 1, 0)
    desk.renew(11.0)
    desk.say(1, verdict())
    assert desk.take() == []
    desk.say(1, wire.Generation(6))
    assert desk.sent[1][-1] == {"kind": "generation", "generation": 6}
    assert desk.state.generation == before + 1
    desk.say(2, verdict(1))
    assert len(desk.take()) == 1
    desk.do(desk.ledger.flow_events([event(7)], 1.0))
    assert desk.sent[2][-1]["kind"] == "opened"
    assert all(line["kind"] != "opened" for line in desk.sent[1])
    desk.do(desk.ledger.left(1, 1.0))
    assert desk.runs_at(11.0)


def test_the_old_one_counts_again_when_the_new_one_dies(desk: Desk) -> None:
    desk.join(2, pid=300, generation=1)
    desk.do(desk.ledger.newest(300, 1.0))
    desk.say(1, wire.Generation(6))
    desk.do(desk.ledger.left(2, 1.0))
    assert not desk.runs_at(10.0)
    desk.do(desk.ledger.newest(NEW_PID, 1.0))
    desk.renew(12.0)
    assert desk.runs_at(12.0)
    desk.say(1, verdict(5))
    assert desk.take() == []
    desk.say(1, verdict(6))
    assert len(desk.take()) == 1


def test_a_reconnected_ztunnel_counts_before_its_old_connection_is_seen_to_end(desk: Desk) -> None:
    desk.join(2, generation=9)
    desk.say(1, verdict(5))
    assert desk.take() == []
    desk.say(2, verdict(9))
    assert len(desk.take()) == 1
    desk.do(desk.ledger.left(1, 1.0))
    assert desk.ledger.current == 2


# Services


def test_a_service_is_written_with_ids(desk: Desk) -> None:
    desk.say(1, service(slot(), slot(address="10.0.0.2", weight=3)))
    target = parse_endpoint("10.0.0.2:8080")
    slots = (LocalEndpoint(1, 12, target), LocalEndpoint(3, 12, target))
    assert desk.take() == [do.PutService((11, VIP, 80), 10, slots)]


@pytest.mark.parametrize(
    "message",
    [
        service(slot(), slot("x")),
        service(slot(address="10.0.0.9")),  # not that pod's
        service(*[slot()] * (wire.SLOTS_MAX + 1)),
        service(slot(), source="x"),
    ],
)
def test_a_service_that_cannot_be_had_whole_is_not_had(
    desk: Desk, message: wire.ServiceShare
) -> None:
    desk.say(1, message)
    assert desk.take() == []
    assert sum(desk.ignored().values()) == 1


def test_what_is_there_of_it_goes(desk: Desk) -> None:
    desk.say(1, service(slot()))
    desk.take()
    desk.say(1, service(slot(), slot("x")))
    assert desk.take() == [do.DropService((11, VIP, 80))]
    desk.say(1, service(slot()))
    desk.take()
    desk.say(1, service())
    assert desk.take() == [do.DropService((11, VIP, 80))]
    desk.say(1, service())
    assert desk.take() == []
    assert desk.ledger.services == 0


@pytest.mark.parametrize("uid", ["a", "b"])
def test_a_pod_that_goes_takes_its_services_along(desk: Desk, uid: str) -> None:
    desk.capture("c", 13, C4)
    desk.say(1, service(slot()))
    desk.say(1, service(slot("c", "10.0.0.3"), source="c"))
    desk.take()
    desk.do(desk.ledger.released(uid))
    assert desk.take() == [do.DropService((11, VIP, 80))]
    assert desk.ledger.services == 1


def test_a_ztunnel_that_goes_takes_all_services_along(desk: Desk) -> None:
    desk.say(1, service(slot()))
    desk.take()
    desk.do(desk.ledger.left(1, 1.0))
    assert desk.take() == [do.DropService((11, VIP, 80))]
    assert desk.ledger.services == 0


def test_services_are_bounded(desk: Desk) -> None:
    for number in range(wire.SERVICES_MAX + 1):
        port = 1 + number
        desk.say(1, wire.ServiceShare("a", VIP, port, 10, (slot(),)))
    assert desk.ledger.services == wire.SERVICES_MAX
    assert desk.ignored() == {"services_full": 1}
    desk.say(1, wire.ServiceShare("a", VIP, 1, 11, (slot(),)))  # a known one may change
    assert isinstance(desk.take()[-1], do.PutService)


# Pods


def test_a_capture_that_changes_nothing_changes_nothing(desk: Desk) -> None:
    desk.say(1, service(slot()))
    desk.take()
    desk.capture("b", 12, B4, B6)
    assert desk.take() == []
    desk.capture("b", 13, B4)  # another namespace under the same uid
    assert desk.take() == [do.DropService((11, VIP, 80))]


def test_an_unknown_pod_may_be_released(desk: Desk) -> None:
    assert desk.ledger.released("x") == []


# FlowTable


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
