"""Lines of the access log: both styles, levels, quoting, what is remembered; and their writer."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from control.kit.log import FIELD_CHARS_MAX
from control.model.address import parse_endpoint
from control.model.identity import SpiffeId
from control.model.workload import Workload
from ztunnel.refusals import Flag
from ztunnel.telemetry.access_log import (
    ENDS_KEPT_MAX,
    JSON,
    TEXT,
    AccessLog,
    Style,
)
from ztunnel.telemetry.parties import Parties, Reporter

SOURCE = Workload(uid="c", name="client-1", namespace="demo")


class FakeClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, 2, 3, 4, 5, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return 7.0


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "access")


def parties(source: Workload = SOURCE) -> Parties:
    return Parties(
        Reporter.SOURCE,
        parse_endpoint("10.0.0.1:5000"),
        parse_endpoint("[fd00::7]:80"),
        source=source,
        source_identity=SpiffeId("cluster.local", "demo", "client"),
    )


def written(made: Parties, style: Style = TEXT, error: str = "") -> str:
    lines: list[str] = []
    AccessLog(FakeClock(), lines.append, style).closed(made, 1, 2, 6.75, Flag.CONNECT, error)
    (line,) = lines
    return line


def test_a_text_line() -> None:
    assert written(parties()) == (
        "2026-01-01T02:03:04.000005Z\tinfo\taccess\tconnection complete"
        " src.addr=10.0.0.1:5000 src.workload=client-1 src.namespace=demo"
        " src.identity=spiffe://cluster.local/ns/demo/sa/client src.cluster=Kubernetes"
        " dst.addr=[fd00::7]:80 direction=outbound bytes_sent=1 bytes_recv=2 duration=250ms\n"
    )


def test_both_styles_say_the_same() -> None:
    entry = json.loads(written(parties(), JSON, error="why not"))
    assert entry["error"] == "why not"
    assert entry["src.workload"] == "client-1"
    assert (entry["bytes_sent"], entry["duration"], entry["level"]) == (1, "250ms", "error")
    assert ' error="why not"\n' in written(parties(), TEXT, error="why not")


@pytest.mark.parametrize("style", [TEXT, JSON])
def test_nobody_forges_a_line_or_fills_the_disk(style: Style) -> None:
    name = 'x"\n2026 forged' + "y" * 10_000
    line = written(parties(replace(SOURCE, name=name)), style, error="a\nb" + "z" * 10_000)
    assert line.count("\n") == 1
    assert len(line) < 600 + 2 * (FIELD_CHARS_MAX + 20)


def test_the_level_of_the_scope_decides(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    log = AccessLog(FakeClock(), lines.append, TEXT)
    log.opened(parties())
    caplog.set_level(logging.ERROR, "access")
    log.closed(parties(), 0, 0, 7.0, Flag.NONE, "")
    log.closed(parties(), 0, 0, 7.0, Flag.DENY, "policy")
    assert lines == []
    caplog.set_level(logging.DEBUG, "access")
    log.opened(parties())
    assert "connection opened" in lines[0]


def test_what_is_remembered_about_an_end_is_never_stale() -> None:
    lines: list[str] = []
    log = AccessLog(FakeClock(), lines.append, TEXT)
    renamed = replace(SOURCE, name="client-2")
    for number in range(ENDS_KEPT_MAX + 10):
        log.closed(parties(replace(SOURCE, uid=str(number))), 0, 0, 7.0, Flag.NONE, "")
    for source in (SOURCE, renamed, SOURCE):
        log.closed(parties(source), 0, 0, 7.0, Flag.NONE, "")
    names = ["client-2" in line for line in lines[-3:]]
    assert names == [False, True, False]


class TickingClock:
    """A wall clock that jumps, beside one that does not."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 1, 1, 2, 3, 4, 999_000, tzinfo=UTC)
        self.mono_s = 100.0

    def now(self) -> datetime:
        return self.wall

    def monotonic_s(self) -> float:
        return self.mono_s


def test_the_time_goes_on_between_two_looks_at_the_wall_clock() -> None:
    clock = TickingClock()
    lines: list[str] = []
    log = AccessLog(clock, lines.append, TEXT)
    for mono_s, wall in (
        (100.0, clock.wall),
        (100.0005, clock.wall),  # within the second: the wall clock is not asked
        (100.0015, clock.wall.replace(second=5, microsecond=500)),
        (100.3015, clock.wall.replace(second=5, microsecond=300_500)),
        (102.0, clock.wall.replace(hour=1, microsecond=0)),  # somebody has set it back
    ):
        clock.mono_s, clock.wall = mono_s, wall
        log.closed(parties(), 0, 0, mono_s, Flag.NONE, "")
    assert [line[11:27] for line in lines] == [
        "02:03:04.999000Z",
        "02:03:04.999500Z",
        "02:03:05.000500Z",
        "02:03:05.300500Z",
        "01:03:04.000000Z",
    ]
