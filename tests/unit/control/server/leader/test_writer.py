"""The leader's writing: only while it leads, only what differs, and one failure stops no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import pytest

from control.kube.errors import ApiError, Unreachable
from control.server.leader.election import Election
from control.server.leader.ledger import Target, WriteLedger
from control.server.leader.writer import LOOK_AGAIN_S, LOOK_S, Writer
from control.server.metrics import Metrics
from tests.support.clock import FakeClock

A, B = Target("Pod", "shop", "a"), Target("Pod", "shop", "b")


class FakeDuty:
    """An API server's part in one duty: `there` is what it has."""

    def __init__(self, removes: bool = False) -> None:
        self.ledger = WriteLedger[str](removes=removes)
        self.wants: dict[Target, str] = {}
        self.there: dict[Target, str] = {}
        self.refuses: dict[Target, Exception] = {}
        self.looks = 0
        self.blind: Exception | None = None
        self.writes: list[tuple[Target, str | None]] = []

    def wanted(self) -> Mapping[Target, str]:
        return dict(self.wants)

    async def look(self) -> Mapping[Target, str]:
        self.looks += 1
        if self.blind is not None:
            raise self.blind
        return self.there

    async def write(self, target: Target, value: str | None) -> None:
        self.writes.append((target, value))
        if target in self.refuses:
            raise self.refuses[target]
        if value is None:
            del self.there[target]
        else:
            self.there[target] = value


class FakeElection(Election):
    """`leads` is the whole election."""

    def __init__(self) -> None:
        self.leads = True

    def holds(self) -> bool:
        return self.leads


class Bench:
    def __init__(self, *duties: FakeDuty) -> None:
        self.clock, self.election, self.metrics = FakeClock(), FakeElection(), Metrics()
        self.writer = Writer(self.election, duties, self.metrics, self.clock)

    def step(self) -> None:
        asyncio.run(self.writer.step())


def test_only_the_leader_writes_and_a_new_one_looks_first() -> None:
    duty = FakeDuty()
    duty.wants, duty.there = {A: "x", B: "y"}, {B: "y"}
    bench = Bench(duty)
    bench.election.leads = False
    bench.step()
    assert (duty.looks, duty.writes) == (0, [])
    assert bench.metrics.registry.get_sample_value("tulle_control_leads") == 0
    bench.election.leads = True
    bench.step()
    bench.step()
    assert (duty.looks, duty.writes) == (1, [(A, "x")])
    bench.election.leads = False
    bench.step()
    duty.there[A] = "changed by the leader in between"
    bench.election.leads = True
    bench.step()
    assert (duty.looks, duty.writes) == (2, [(A, "x"), (A, "x")])


def test_a_hand_that_changes_or_deletes_is_noticed() -> None:
    duty = FakeDuty(removes=True)
    duty.wants = {A: "x"}
    bench = Bench(duty)
    bench.step()
    duty.there = {B: "not wanted"}
    bench.step()
    assert duty.writes == [(A, "x")]
    bench.clock.pass_s(LOOK_S)
    bench.step()
    assert duty.writes == [(A, "x"), (A, "x"), (B, None)]
    assert duty.there == {A: "x"}


def test_one_that_is_refused_stops_no_other_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "leader")
    duty = FakeDuty()
    duty.wants, duty.refuses = {A: "x", B: "y"}, {A: ApiError(409, "Conflict", "theirs")}
    bench = Bench(duty)
    for _ in range(3):
        bench.step()
        bench.clock.pass_s(30)
    assert duty.writes == [(A, "x"), (B, "y")]
    bench.clock.pass_s(300)
    bench.step()
    assert duty.writes == [(A, "x"), (B, "y"), (A, "x")]
    assert len([each for each in caplog.records if "not_written" in each.getMessage()]) == 1
    value = bench.metrics.registry.get_sample_value
    assert value("tulle_control_writes_total", {"kind": "Pod", "result": "failed"}) == 2
    assert value("tulle_control_writes_total", {"kind": "Pod", "result": "written"}) == 1


def test_a_duty_that_may_not_look_writes_all_the_same_and_others_go_on() -> None:
    blind, seeing = FakeDuty(), FakeDuty()
    blind.blind = ApiError(403, "Forbidden", "no list")
    blind.wants = seeing.wants = {A: "x"}
    bench = Bench(blind, seeing)
    bench.step()
    assert (blind.writes, seeing.writes) == ([], [(A, "x")])
    bench.clock.pass_s(LOOK_AGAIN_S)
    bench.step()
    assert blind.writes == [(A, "x")]


def test_an_api_server_that_is_away_is_tried_again() -> None:
    duty = FakeDuty()
    duty.wants, duty.refuses = {A: "x"}, {A: Unreachable("away")}
    bench = Bench(duty)
    bench.step()
    duty.refuses = {}
    bench.clock.pass_s(2)
    bench.step()
    assert duty.there == {A: "x"}
