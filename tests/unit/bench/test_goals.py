"""A goal is met only by a measurement that shows it."""

from __future__ import annotations

import pytest

from tests.bench import goals
from tests.bench.cases import CASES
from tests.bench.goals import GOALS, HOST, Verdict, judge
from tests.bench.model import METRICS, Measurement, Result
from tests.unit.bench.made import ENVOY, NONE, SAME, TULLE, measurement, result


def verdict(what: str, *measurements: Measurement) -> Verdict:
    return {one.goal.what: one.verdict for one in judge(result(*measurements))}[what]


def test_nothing_measured_is_nothing_met() -> None:
    assert {one.verdict for one in judge(result())} == {Verdict.MISSING}


def test_ours_without_the_peer_is_missing() -> None:
    ours = measurement("c64", TULLE, rps=1e9)
    assert verdict("64 connections, requests/s", ours) is Verdict.MISSING


def test_thrown_away_is_missing() -> None:
    ours = measurement("c64", TULLE, rps=1e9, kept=False)
    theirs = measurement("c64", ENVOY, rps=1.0)
    assert verdict("64 connections, requests/s", ours, theirs) is Verdict.MISSING


@pytest.mark.parametrize(
    ("rps", "expected"), [(109.0, Verdict.SHORT), (110.0, Verdict.MET), (131.0, Verdict.MET)]
)
def test_more_is_better(rps: float, expected: Verdict) -> None:
    theirs = measurement("c64", ENVOY, rps=100.0)
    ours = measurement("c64", TULLE, rps=rps)
    assert verdict("64 connections, requests/s", ours, theirs) is expected


@pytest.mark.parametrize(("p99", "expected"), [(80.0, Verdict.MET), (81.0, Verdict.SHORT)])
def test_less_is_better(p99: float, expected: Verdict) -> None:
    theirs = measurement("c64", ENVOY, p99_us=100.0)
    ours = measurement("c64", TULLE, p99_us=p99)
    assert verdict("64 connections, p99", ours, theirs) is expected


def test_a_worker_is_compared_with_the_whole_peer() -> None:
    ours = measurement("c64", TULLE, rss_out_mib=80.0, worker_rss_out_mib=35.0)
    theirs = measurement("c64", ENVOY, rss_out_mib=66.0)
    assert verdict("RSS of a worker, client side", ours, theirs) is Verdict.MET
    assert verdict("RSS of the ztunnel, client side", ours, theirs) is Verdict.MET


def test_same_node_is_compared_with_no_mesh() -> None:
    ours = measurement("c1", TULLE, topology=SAME, rps=96.0, p50_us=1.0)
    theirs = measurement("c1", NONE, topology=SAME, rps=100.0, p50_us=1.0)
    assert verdict("same node, 1 connection, requests/s", ours, theirs) is Verdict.SHORT
    assert verdict("same node, 1 connection, p50", ours, theirs) is Verdict.MET


def test_some_goals_are_of_ours_alone() -> None:
    ours = measurement("push", TULLE, during_ratio=1.4, stall_ms=12.0)
    assert verdict("10,000-workload push: p99 during / before", ours) is Verdict.MET
    assert verdict("10,000-workload push: longest stall, ms", ours) is Verdict.SHORT


def test_every_goal_names_a_case_and_a_metric_that_exist() -> None:
    cases = {case.name: case for case in CASES}
    for goal in GOALS:
        assert goal.metric in METRICS
        topologies = {each.value for each in cases[goal.case].topologies} | {HOST}
        assert goal.topology in topologies
        systems = {each.value for each in cases[goal.case].systems}
        assert {goal.against, TULLE} - {""} <= systems


def test_what_falls_short_is_said_first() -> None:
    theirs = measurement("c64", ENVOY, rps=100.0, p99_us=100.0)
    ours = measurement("c64", TULLE, rps=135.0, p99_us=90.0)
    lines = goals.text(judge(result(ours, theirs))).splitlines()
    assert lines[0].startswith("short")
    assert "64 connections, p99" in lines[0]
    assert "0.90" in lines[0]
    assert "1 of 24 goals met, 1 short, 22 not measured" in lines[-1]
    assert "aim 1.3 reached" in lines[-2]


def test_better_than_no_mesh_is_asked_only_where_a_shortcut_is() -> None:
    def found(**machine: str) -> list[str]:
        return [one.goal.what for one in judge(Result("now", machine)) if one.goal.needs_shortcut]

    assert found() == []
    assert found(shortcut="the kernel has no tcx (6.6)") == []
    assert len(found(shortcut="on")) == 2
