"""Answers about connections and counts: complete, bounded, and honest about the bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.model.address import parse_endpoint
from control.model.workload import Workload
from tests.support.engine.direct_rig import Rig
from tests.support.engine.rows import joined
from ztunnel.connections.pod import OpenConnection
from ztunnel.telemetry.outcome import Outcome
from ztunnel.telemetry.parties import Parties, Reporter
from ztunnel.transport.ends import RelayEnd
from ztunnel.worker import answers

CLIENT = parse_endpoint("10.0.0.1:5000")
TARGET = parse_endpoint("10.0.0.2:80")


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


class Connection:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def abort(self, reason: RelayEnd) -> None:
        raise AssertionError

    def recheck(self, workload: Workload | None) -> None:
        raise AssertionError

    def on_bug(self) -> None:
        raise AssertionError


def open_one(rig: Rig, reporter: Reporter) -> OpenConnection:
    source = reporter is Reporter.SOURCE
    book = rig.client.outbound if source else rig.server.inbound
    outcome = rig.engine.outcome(Parties(reporter, CLIENT, TARGET))
    outcome.opened(rig.engine.counters, lambda: (5, 7))
    connection = Connection(outcome)
    rig.engine.enter(book, connection)
    return connection


def test_connections_are_listed_by_pod_and_direction(rig: Rig) -> None:
    open_one(rig, Reporter.SOURCE)
    open_one(rig, Reporter.DESTINATION)
    answer = joined(answers.connections(rig.engine, rig.path))
    assert not answer["truncated"]
    shown = answer["connections"]
    assert [len(shown["uid-client"][way]) for way in ("inbound", "outbound")] == [0, 1]
    assert [len(shown["uid-server"][way]) for way in ("inbound", "outbound")] == [1, 0]
    assert answer["direct"] == {"flows": 0, "services": 0}


def test_a_list_that_is_too_long_says_so(rig: Rig) -> None:
    for _ in range(2):
        open_one(rig, Reporter.SOURCE)
    assert not joined(answers.connections(rig.engine, None, 2))["truncated"]
    open_one(rig, Reporter.DESTINATION)
    answer = joined(answers.connections(rig.engine, None, 2))
    assert answer["truncated"]
    assert answer["connections"]["uid-server"]["inbound"] == []
    assert answer["direct"] == {}


def test_metrics_bring_open_connections_up_to_date(rig: Rig) -> None:
    open_one(rig, Reporter.SOURCE)
    answer = joined(answers.metrics(rig.engine, rig.path, bugs=2, lines_dropped=3))
    counters = {name: value for name, _, value in answer["counters"]}
    assert counters["istio_tcp_received_bytes_total"] == 5
    assert counters["istio_tcp_sent_bytes_total"] == 7
    assert counters["tulle_ztunnel_internal_errors_total"] == 2
    assert counters["tulle_ztunnel_log_lines_dropped_total"] == 3
    gauges = {(name, labels.get("reporter")): n for name, labels, n in answer["gauges"]}
    assert gauges["istio_tcp_sockets_open", "source"] == 1
    assert gauges["istio_tcp_sockets_open", "destination"] == 0
    assert gauges["tulle_ztunnel_tunnels", "source"] == 0
    assert gauges["tulle_ztunnel_direct_flows", None] == 0


def test_an_answer_comes_in_pieces_and_of_label_sets_only_what_has_changed(rig: Rig) -> None:
    for number in range(3 * answers.PIECE_ENTRIES):
        who = Workload(uid=f"u{number}", name=f"u{number}", namespace="n", service_account="s")
        parties = Parties(Reporter.SOURCE, CLIENT, TARGET, who)
        rig.engine.counters.series(parties).opened = number
    pieces = list(answers.metrics(rig.engine, None, bugs=0, lines_dropped=0))
    most = 6 * answers.PIECE_ENTRIES
    assert [len(each["counters"]) for each in pieces[1:] if "counters" in each][:3] == [96] * 3
    assert all(len(each.get("counters", ())) <= most for each in pieces)
    rig.engine.counters.series(Parties(Reporter.SOURCE, CLIENT, TARGET, who)).opened += 1
    again = joined(answers.metrics(rig.engine, None, bugs=0, lines_dropped=0))
    opened = [n for name, _, n in again["counters"] if name.endswith("connections_opened_total")]
    assert opened == [3 * answers.PIECE_ENTRIES]
