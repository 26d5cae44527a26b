"""The table of open direct connections: reports, memory, bound."""

from __future__ import annotations

import json
from typing import Any

from agent.datapath.flows import FlowReport
from agent.direct.flows import RETIRED_MAX, FlowTable
from control.model.address import parse_endpoint

CLIENT, TARGET = parse_endpoint("10.0.0.1:40000"), parse_endpoint("10.0.0.2:80")


def opened(number: int, source: int = 1, destination: int = 2) -> FlowReport:
    return FlowReport(number, False, source, destination, CLIENT, TARGET, TARGET, age_s=0.5)


def closed(number: int, source: int = 1, destination: int = 2, error: str = "") -> FlowReport:
    event = opened(number, source, destination)
    return event._replace(is_closed=True, sent=5, age_s=3.0, error=error)


def flows(limit: int = 100, under_way_max: int = 0) -> FlowTable:
    made = FlowTable(limit, under_way_max)
    made.named(1, "u1")
    made.named(2, "u2")
    return made


def told(lines: list[bytes]) -> list[tuple[str, int]]:
    return [(kind, flow["id"]) for kind, flow in _flows(lines)]


def _flows(lines: list[bytes]) -> list[tuple[str, dict[str, Any]]]:
    records = [json.loads(line) for line in lines]
    return [(record["kind"], flow) for record in records for flow in record["flows"]]


def test_a_connection_is_opened_and_closed() -> None:
    table = flows()
    assert told(table.take([opened(7)], 10.0)) == [("opened", 7)]
    assert len(table) == 1
    ((kind, flow),) = _flows(table.take([closed(7)], 12.0))
    assert (kind, flow["source"], flow["destination"], flow["sent"]) == ("closed", "u1", "u2", 5)
    assert flow["age_s"] == 2.5
    assert len(table) == 0


def test_a_short_connection_is_one_line() -> None:
    table = flows()
    assert told(table.take([opened(7), opened(8), closed(7)], 10.0)) == [
        ("opened", 8),
        ("closed", 7),
    ]
    assert (table.counts.opened, table.counts.closed, len(table)) == (2, 1, 1)


def test_an_end_without_a_beginning_is_told() -> None:
    table = flows()
    ((_, flow),) = _flows(table.take([closed(7, error="failed")], 10.0))
    assert (flow["age_s"], flow["error"]) == (3.0, "failed")
    assert table.counts.failed == 1


def test_a_full_table_has_room_for_what_is_under_way_and_names_the_rest() -> None:
    table = flows(limit=8, under_way_max=2)
    table.take([opened(number) for number in range(8)], 1.0)
    assert table.is_full
    assert len(table.take([opened(number) for number in range(8, 12)], 1.0)) == 1
    assert (len(table), table.counts.unlisted, table.is_full) == (10, 2, True)
    assert [each.report.id for each in table.unlisted()] == [10, 11]
    assert table.unlisted() == []
    table.take([closed(number) for number in range(3)], 2.0)
    assert not table.is_full  # 9 of 10: the mark to go on
    assert told(table.take([closed(11)], 2.0)) == [("closed", 11)]


def test_a_full_table_does_not_flap() -> None:
    table = flows(limit=100)
    table.take([opened(number) for number in range(100)], 1.0)
    assert table.is_full
    table.take([closed(number) for number in range(9)], 1.0)
    assert table.is_full
    table.take([closed(9)], 1.0)
    assert not table.is_full


def test_last_connections_of_a_pod_that_is_gone_have_its_name() -> None:
    table = flows()
    table.retired(1)
    ((_, flow),) = _flows(table.take([closed(7)], 1.0))
    assert flow["source"] == "u1"
    for number in range(100, 100 + RETIRED_MAX):
        table.named(number, "x")
        table.retired(number)
    assert table.take([closed(8)], 1.0) == []
    assert table.counts.unknown == 1


def test_connections_of_nobody_are_counted() -> None:
    table = flows()
    assert table.take([opened(7, source=9), closed(8, destination=9)], 1.0) == []
    assert (table.counts.unknown, len(table)) == (2, 0)


def test_all_that_is_open_is_told_again_with_its_age() -> None:
    table = flows()
    table.take([opened(7), opened(8)], 10.0)
    table.take([closed(8)], 11.0)
    ((kind, flow),) = _flows(table.all_lines(20.0))
    assert (kind, flow["id"], flow["age_s"]) == ("opened", 7, 10.5)


def test_a_connection_that_is_found_and_told_counts_once() -> None:
    table = flows()
    table.take([opened(7)], 10.0)
    assert table.take([opened(7)], 11.0) == []
    assert (len(table), table.counts.opened) == (1, 1)


def test_a_connection_that_ended_without_a_word_ends_with_its_last_sample() -> None:
    table = flows()
    table.take([opened(7), opened(8)], 10.0)
    table.moved([(7, 11, 22)])
    ((kind, flow),) = _flows(table.lost([7, 9], 12.0))
    assert (kind, flow["id"], flow["sent"], flow["received"]) == ("closed", 7, 11, 22)
    assert (len(table), table.counts.lost) == (1, 1)


def test_old_connections_of_a_pod_that_is_not_direct_any_more_have_a_name() -> None:
    table = flows()
    table.retired(3, "u3")
    assert table.uids() == {"u1", "u2", "u3"}
    assert told(table.take([opened(7, source=3)], 1.0)) == [("opened", 7)]
    table.retired(9)  # a workload id that nobody has
    assert table.uids() == {"u1", "u2", "u3"}


def test_only_what_moved_is_told() -> None:
    table = flows()
    table.take([opened(7), opened(8)], 10.0)
    assert [json.loads(line) for line in table.moved([(7, 1, 2), (9, 5, 5), (8, 0, 0)])] == [
        {"kind": "moved", "flows": [[7, 1, 2]]}
    ]
    assert table.moved([(7, 1, 2)]) == []
