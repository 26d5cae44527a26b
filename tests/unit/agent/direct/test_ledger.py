"""The ledger of the direct path: each input, and the commands to kernel and ztunnels."""

from __future__ import annotations

import pytest

from agent.datapath.entries import LocalEndpoint, PlaintextRules
from agent.direct import commands as do
from agent.direct import ledger
from control.model.address import parse_endpoint
from control.wire import direct as wire
from tests.unit.agent.direct.desk import (
    B4,
    B6,
    C4,
    NEW_PID,
    OLD_PID,
    VIP,
    Desk,
    S,
    event,
    service,
    slot,
    verdict,
)

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


# Plaintext


REFUSED = wire.Plaintext("b", True, (9090,))
RULES = do.SetPlaintext("b", PlaintextRules(True, frozenset({9090})))


def test_the_ports_closed_to_plaintext_are_written(desk: Desk) -> None:
    assert desk.say(1, REFUSED) == [RULES]


def test_a_ztunnel_that_becomes_the_newest_brings_its_rules(desk: Desk) -> None:
    desk.join(2, OLD_PID)
    assert desk.say(2, REFUSED) == []
    desk.take()
    desk.do(desk.ledger.newest(OLD_PID, 2.0))
    assert RULES in desk.take()


def test_the_rules_of_a_ztunnel_that_left_stay(desk: Desk) -> None:
    desk.say(1, REFUSED)
    desk.take()
    desk.do(desk.ledger.left(1, 2.0))
    assert not any(isinstance(each, do.SetPlaintext) for each in desk.take())


def test_a_ztunnel_has_rules_for_so_many_pods(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PLAINTEXT_PODS_MAX", 1)
    desk.say(1, REFUSED)
    assert desk.say(1, wire.Plaintext("c", True)) == []
    assert desk.say(1, REFUSED) == [RULES]
    assert desk.ledger.counts.ignored["plaintext_full"] == 1


def test_a_ztunnel_that_tells_of_pods_is_asked_whether_it_knows_one(desk: Desk) -> None:
    assert not desk.ledger.lacks("b"), "this one never says so"
    desk.do(desk.ledger.joined(3, NEW_PID))
    desk.say(3, wire.ZtunnelHello(9, tells_pods=True))
    assert desk.ledger.lacks("b")
    desk.say(3, REFUSED)
    assert not desk.ledger.lacks("b")
    desk.ledger.forgotten("b")
    assert desk.ledger.lacks("b"), "deleted: it is told again when it comes again"
    desk.do(desk.ledger.newest(None, 3.0))
    assert not desk.ledger.lacks("c"), "there is none"
