"""Connections as accounts: who makes room for whom, who pays, and what is counted."""

from __future__ import annotations

import logging

import pytest

from control.server.callers.arrivals import Arrival, Arrivals
from control.server.callers.budget import (
    CONNECTIONS,
    SILENT,
    UNADMITTED,
    Tenant,
    node_tenant,
    source_tenant,
)
from control.server.callers.refusals import CallRefusal
from control.server.callers.strangers import GRACE_S
from control.server.metrics import Metrics
from tests.support.clock import FakeClock

HERE, THERE = "10.0.0.1", "10.0.0.2"


class Bench:
    def __init__(self, capacity: int = 100_000) -> None:
        self.metrics, self.clock = Metrics(), FakeClock()
        self.subject = Arrivals(self.metrics, self.clock, capacity)
        self.closed: list[tuple[str, str]] = []
        self.admitted = 0

    def open(self, host: str = HERE) -> Arrival:
        arrival: Arrival

        def close(why: CallRefusal) -> None:
            self.closed.append((arrival.address, why.word))
            self.subject.leave(arrival)

        def admitted() -> None:
            self.admitted += 1

        arrival = self.subject.open(host, 1000 + len(self.closed), close, admitted)
        return arrival


def test_the_waypoints_of_a_namespace_have_a_share_together_and_nodes_their_own() -> None:
    bench = Bench()
    shop, other = Tenant("namespace", "shop"), Tenant("namespace", "other")

    def admit(number: int, group: Tenant | None) -> bool:
        return bench.subject.admit(bench.open(), Tenant("waypoint", str(number)), group)

    each = bench.subject.waypoints.bound.each
    assert each < bench.subject.connections.bound.total / 2
    assert all(admit(number, shop) for number in range(each))
    assert not admit(each, shop)
    assert bench.subject.connections.held(Tenant("waypoint", str(each))) == 0, "taken back"
    assert admit(each, other)
    assert bench.subject.admit(bench.open(), node_tenant("n1"))
    for arrival in list(bench.subject._by_number.values()):
        bench.subject.leave(arrival)
    assert (bench.subject.waypoints.total, bench.subject.connections.total) == (0, 0)


def test_the_oldest_silent_connections_of_a_source_make_room() -> None:
    bench = Bench()
    first = [bench.open() for _ in range(SILENT.each)]
    bench.open()
    assert bench.closed == [], "each may be about to speak"
    bench.clock.pass_s(GRACE_S)
    bench.open()
    gone = [address for address, _ in bench.closed]
    assert gone == [each.address for each in first[:2]]
    other = bench.open(THERE)
    assert bench.subject.get(other.number) is other
    assert len(bench.closed) == 2, "another source has its own share"


def test_a_burst_that_waits_for_us_displaces_nobody() -> None:
    bench = Bench()
    for _ in range(UNADMITTED.each):
        bench.subject.hear(bench.open())
    assert bench.closed == []
    assert bench.subject.unadmitted.total == UNADMITTED.each
    assert bench.subject.silent.total == 0
    bench.open()
    assert [why for _, why in bench.closed] == ["displaced"]


def test_one_source_leaves_half_of_the_places_to_others() -> None:
    bench = Bench()
    for _ in range(2 * UNADMITTED.total):
        bench.subject.hear(bench.open())
    assert 2 * bench.subject.unadmitted.total <= UNADMITTED.total
    before = len(bench.closed)
    for number in range(UNADMITTED.total // 2):
        bench.subject.hear(bench.open(f"10.1.{number // 250}.{number % 250}"))
    assert len(bench.closed) == before, "nobody has to go for them"


def test_few_are_passed_on_to_grpc_without_a_token() -> None:
    bench = Bench(capacity=60)  # 20 at once, 10 of one source
    opened = [bench.open() for _ in range(12)]
    for each in opened:
        bench.subject.hear(each)
        bench.subject.pass_on(each)
    gone = [address for address, _ in bench.closed]
    assert gone == [each.address for each in opened[:2]]
    assert bench.subject.admit(opened[2], node_tenant("n1"))
    bench.subject.pass_on(bench.open())
    assert len(bench.closed) == 2


def test_500_nodes_come_back_from_one_address_where_20_000_files_may_be_open() -> None:
    bench = Bench(capacity=(20_000 - 256) // 3)
    for _ in range(2 * 500):
        each = bench.open()
        bench.subject.hear(each)
        bench.subject.pass_on(each)
    assert not bench.closed


def test_when_all_is_full_the_source_with_most_makes_room() -> None:
    bench = Bench(capacity=10)  # 9 without a token, 4 of one source
    hog = [bench.open() for _ in range(4)]
    few = [bench.open(f"10.0.1.{number}") for number in range(4)]
    for _ in range(3):
        bench.open(THERE)
    gone = {address for address, _ in bench.closed}
    assert len(bench.closed) == 2
    assert gone <= {each.address for each in hog}
    assert all(bench.subject.get(each.number) for each in few)


def test_an_admitted_connection_is_displaced_by_nobody() -> None:
    bench = Bench()
    mine = bench.open()
    assert bench.subject.admit(mine, node_tenant("n1"))
    assert bench.admitted == 1
    for _ in range(3 * SILENT.each):
        bench.open()
    assert bench.subject.get(mine.number) is mine
    assert bench.subject.connections.held(node_tenant("n1")) == 1


def test_a_node_has_so_many_connections_and_another_node_its_own() -> None:
    bench = Bench()
    mine = [bench.open() for _ in range(CONNECTIONS.each + 1)]
    answers = [bench.subject.admit(each, node_tenant("n1")) for each in mine]
    assert answers == [True] * CONNECTIONS.each + [False]
    assert bench.subject.admit(bench.open(), node_tenant("n2"))
    bench.subject.leave(mine[0])
    bench.subject.leave(mine[0])
    assert bench.subject.admit(mine[-1], node_tenant("n1"))


def test_the_node_of_the_last_call_pays() -> None:
    bench = Bench()
    shared = bench.open()
    assert shared.payer == source_tenant(HERE)
    bench.subject.admit(shared, node_tenant("n1"))
    bench.subject.admit(shared, node_tenant("n2"))
    assert (shared.tenant, shared.payer) == (node_tenant("n1"), node_tenant("n2"))
    bench.subject.leave(shared)
    assert bench.subject.connections.total == 0
    assert (
        bench.subject.admit(bench.subject.open(HERE, 1, print, print), node_tenant("n1"))
        is not None
    )


def test_refusals_are_all_counted_and_their_lines_sampled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    tenant = node_tenant("n1")
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            bench.subject.refused(tenant, "xds", CallRefusal.STREAMS_MAX)
        bench.subject.refused(node_tenant("n2"), "csr", CallRefusal.CSR_KEY)
        bench.clock.pass_s(5)
        bench.subject.refused(tenant, "xds", CallRefusal.STREAMS_MAX)
    lines = [record.fields for record in caplog.records]  # type: ignore[attr-defined]  # ours
    assert len(lines) == 12
    assert lines[-1] == {"reason": CallRefusal.STREAMS_MAX, "left_out": 90}
    registry = bench.metrics.registry
    labels = {"method": "xds", "reason": "streams_max"}
    assert registry.get_sample_value("tulle_control_refused_total", labels) == 101
    labels = {"result": "refused", "reason": "csr_key"}
    assert registry.get_sample_value("tulle_control_csr_total", labels) == 1
    assert bench.subject.refusals[tenant].by_reason == {CallRefusal.STREAMS_MAX: 101}
