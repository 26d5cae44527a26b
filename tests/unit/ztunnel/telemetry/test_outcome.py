"""One line and one set of counters per connection and side."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from control.model.address import parse_endpoint
from control.model.identity import SpiffeId
from control.model.workload import Service, Workload
from tests.support.engine.rows import every_row
from ztunnel.refusals import Flag
from ztunnel.telemetry.access_log import JSON, AccessLog
from ztunnel.telemetry.counters import Counters, tcp_labels
from ztunnel.telemetry.outcome import Outcome
from ztunnel.telemetry.parties import Parties, Reporter
from ztunnel.tenants.lines import ENDS_BURST, ENDS_PER_S
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.tenants.work import LINES_BURST

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")
SOURCE = Workload(uid="c", name="client-1", namespace="demo", workload_name="client")
DESTINATION = Workload(
    uid="s", name="web-1", namespace="shop", workload_name="web", canonical_name="web"
)


class FakeClock:
    def __init__(self) -> None:
        self.s = 5.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return self.s


def parties(reporter: Reporter = Reporter.SOURCE) -> Parties:
    return Parties(
        reporter,
        parse_endpoint("10.0.0.1:5000"),
        parse_endpoint("10.0.1.1:15008"),
        source=SOURCE,
        destination=DESTINATION,
        service=Service("web", "shop", "web.shop.svc.cluster.local"),
        target=parse_endpoint("10.0.1.1:8080"),
        source_identity=CLIENT,
        destination_identity=SERVER,
        original=parse_endpoint("10.96.0.1:80"),
    )


def finish(
    made: Parties, counters: Counters, flag: Flag = Flag.NONE, error: str = "", opened: bool = True
) -> dict[str, object]:
    """Its line of the access log."""
    clock = FakeClock()
    lines: list[str] = []
    record = Outcome(clock, made, AccessLog(clock, lines.append, JSON))
    if opened:
        record.opened(counters, lambda: (100, 7))
    clock.s += 0.0124
    record.closed(counters, flag, error)
    (line,) = lines
    fields: dict[str, object] = json.loads(line)
    return fields


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "access")


def test_the_line_has_istios_fields() -> None:
    fields = finish(parties(), Counters())
    assert fields.pop("time") == "2026-01-01T00:00:00.000000Z"
    assert (fields.pop("level"), fields.pop("scope")) == ("info", "access")
    assert fields.pop("message") == "connection complete"
    assert fields == {
        "src.addr": "10.0.0.1:5000",
        "src.workload": "client-1",
        "src.namespace": "demo",
        "src.identity": str(CLIENT),
        "src.cluster": "Kubernetes",
        "dst.addr": "10.0.1.1:15008",
        "dst.hbone_addr": "10.0.1.1:8080",
        "dst.service": "web.shop.svc.cluster.local",
        "dst.workload": "web-1",
        "dst.namespace": "shop",
        "dst.identity": str(SERVER),
        "dst.cluster": "Kubernetes",
        "direction": "outbound",
        "bytes_sent": 100,
        "bytes_recv": 7,
        "duration": "12ms",
    }


def test_bytes_of_the_line_are_those_of_the_local_workload() -> None:
    fields = finish(parties(Reporter.DESTINATION), Counters())
    assert (fields["direction"], fields["bytes_sent"], fields["bytes_recv"]) == ("inbound", 7, 100)


@pytest.mark.parametrize(("flag", "level"), [(Flag.DENY, "warning"), (Flag.CONNECT, "error")])
def test_failures_are_louder(flag: Flag, level: str) -> None:
    fields = finish(parties(), Counters(), flag, "why", opened=False)
    assert fields["level"] == level
    assert fields["error"] == "why"


def exported(counters: Counters) -> dict[tuple[str, str], int]:
    return {
        (name, labels.get("response_flags", labels.get("reason", ""))): value
        for name, labels, value in every_row(counters)
    }


def test_counters_say_client_to_server_is_received() -> None:
    counters = Counters()
    finish(parties(), counters)
    found = exported(counters)
    assert found["istio_tcp_connections_opened_total", "-"] == 1
    assert found["istio_tcp_connections_closed_total", "-"] == 1
    assert found["istio_tcp_received_bytes_total", "-"] == 100
    assert found["istio_tcp_sent_bytes_total", "-"] == 7


def test_a_connection_that_never_opened_has_failed() -> None:
    counters = Counters()
    finish(parties(), counters, Flag.DENY, "policy", opened=False)
    found = exported(counters)
    assert found["istio_tcp_connections_failed_total", "DENY"] == 1
    assert found["istio_tcp_connections_opened_total", "-"] == 0


def test_an_open_connection_is_counted_up_to_now_and_not_twice() -> None:
    counters = Counters()
    moved = [10, 1]
    record = Outcome(FakeClock(), parties(), None)
    record.opened(counters, lambda: (moved[0], moved[1]))
    record.sync()
    assert exported(counters)["istio_tcp_received_bytes_total", "-"] == 10
    moved[:] = [25, 2]
    record.closed(counters, Flag.NONE, "")
    record.closed(counters, Flag.NONE, "")
    found = exported(counters)
    assert found["istio_tcp_received_bytes_total", "-"] == 25
    assert found["istio_tcp_connections_closed_total", "-"] == 1


def test_labels_are_istios() -> None:
    labels = tcp_labels(parties())
    assert labels["source_workload"] == "client"
    assert labels["destination_principal"] == str(SERVER)
    assert labels["connection_security_policy"] == "mutual_tls"
    assert labels["destination_service_name"] == "web"
    assert labels["source_version"] == "unknown"
    assert len(labels) == 3 + 2 * 10 + 3


def test_label_sets_are_bounded() -> None:
    counters = Counters(label_sets_max=3)
    for number in range(10):
        made = parties()
        made.source = Workload(uid=str(number), name=f"pod-{number}", namespace="demo")
        finish(made, counters)
    sets = {
        frozenset(labels.items()) for name, labels, _ in every_row(counters) if "opened" in name
    }
    assert len(sets) == 4
    total = sum(value for name, _, value in every_row(counters) if "opened" in name)
    assert total == 10
    refused = [value for name, _, value in every_row(counters) if "label_sets" in name]
    assert refused == [7]


def test_the_view_is_what_the_admin_page_shows() -> None:
    record = Outcome(FakeClock(), parties(), None)
    record.opened(Counters(), lambda: (100, 7))
    view = record.view(worker=2)
    assert view["originalDst"] == "10.96.0.1:80"
    assert view["actualDst"] == "10.0.1.1:15008"
    assert (view["protocol"], view["worker"]) == ("HBONE", 2)
    assert (view["bytesSent"], view["bytesReceived"]) == (100, 7)
    assert view["sourceWorkload"] == "demo/client-1"


def test_a_direct_connection_says_so_and_is_counted_apart() -> None:
    counters = Counters()
    finish(parties(), counters)
    made = parties()
    made.direct = True
    made.target = None
    made.measured = (85, 0)
    fields = finish(made, counters)
    assert (fields["path"], fields["srtt"], fields["retransmits"]) == ("direct", "85us", 0)
    opened = [labels for name, labels, _ in every_row(counters) if "opened" in name]
    tunnelled, direct = opened
    assert "path" not in tunnelled
    assert (direct["path"], direct["connection_security_policy"]) == ("direct", "none")
    assert direct["destination_principal"] == str(SERVER)
    assert Outcome(FakeClock(), made, None).view(0)["path"] == "direct"


def test_a_connection_may_be_older_than_its_record() -> None:
    clock = FakeClock()
    lines: list[str] = []
    record = Outcome(clock, parties(), AccessLog(clock, lines.append, JSON), age_s=2.5)
    record.opened(Counters(), lambda: (0, 0))
    record.closed(Counters(), Flag.NONE, "")
    assert json.loads(lines[-1])["duration"] == "2500ms"


def test_refused_connections_of_one_tenant_have_a_pace_and_the_rest_is_counted() -> None:
    clock, tenant = FakeClock(), Tenancy(Kind.PEER, "greedy")
    lines: list[str] = []
    counters = Counters()

    def refused(made: Parties) -> None:
        record = Outcome(clock, made, AccessLog(clock, lines.append, JSON))
        record.closed(counters, Flag.DENY, "policy rejection")

    for _ in range(1000):
        refused(replace(parties(), tenant=tenant))
    assert len(lines) == LINES_BURST
    refused(replace(parties(), tenant=Tenancy(Kind.PEER, "other")))
    assert "left_out" not in json.loads(lines.pop())
    clock.s += 1.0
    refused(replace(parties(), tenant=tenant))
    assert json.loads(lines[-1])["left_out"] == 1000 - LINES_BURST
    finish(replace(parties(), tenant=tenant), counters)  # one that was open has another pace
    assert tenant.left_out == 0
    assert counters.engine["access_lines_left_out"] == 1000 - LINES_BURST


def test_connections_at_an_ordinary_rate_have_each_a_line_and_a_flood_is_sampled() -> None:
    clock, tenant = FakeClock(), Tenancy(Kind.POD, "flood")
    lines: list[str] = []
    counters, access = Counters(), AccessLog(clock, lines.append, JSON)

    def close(count: int) -> None:
        for _ in range(count):
            record = Outcome(clock, replace(parties(), tenant=tenant), access)
            record.opened(counters, lambda: (0, 0))
            record.closed(counters, Flag.NONE, "")

    close(int(ENDS_BURST))
    assert len(lines) == ENDS_BURST
    close(500)
    assert len(lines) == ENDS_BURST
    assert counters.engine["access_lines_left_out"] == 500
    clock.s += 1.0
    close(1)
    assert json.loads(lines[-1])["left_out"] == 500
    close(2000)
    assert len(lines) == ENDS_BURST + ENDS_PER_S
    clock.s += ENDS_BURST / ENDS_PER_S
    close(int(ENDS_BURST))
    assert len(lines) == 2 * ENDS_BURST + ENDS_PER_S
