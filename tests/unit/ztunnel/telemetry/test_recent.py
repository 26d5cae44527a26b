"""Refusals of late: alike ones together, the newest of each source, bounded."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from control.model.address import parse_endpoint
from tests.support.clock import FakeClock
from tests.support.engine.meshes import pod, service, spiffe
from ztunnel.mesh.roles import Asked, Target
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.counters import Counters
from ztunnel.telemetry.outcome import Outcome
from ztunnel.telemetry.parties import Parties, Reporter
from ztunnel.telemetry.recent import ENTRIES_MAX, SOURCES_MAX, RecentRefusals

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVER = pod("server", "10.0.0.2")


def denied(port: int = 80, source: str = "10.0.0.1") -> Parties:
    return Parties(
        Reporter.DESTINATION,
        parse_endpoint(f"{source}:40000"),
        parse_endpoint("10.0.0.2:15008"),
        source=pod(f"client-{source}", source),
        destination=SERVER,
        service=service("web", "10.96.0.1"),
        source_identity=spiffe("client"),
        target=Target(parse_endpoint(f"10.0.0.2:{port}")),
    )


def test_alike_ones_share_an_entry_that_says_all() -> None:
    recent = RecentRefusals()
    for seconds in range(3):
        recent.add(denied(), Flag.DENY, "no (shop/p)", NOW + timedelta(seconds=seconds))
    (found,) = [each.view(2) for each in recent.all()]
    assert found == {
        "direction": "inbound",
        "src": "10.0.0.1:40000",
        "dst": "10.0.0.2:80",
        "sourceWorkload": f"{SERVER.namespace}/client-10.0.0.1",
        "destinationWorkload": f"{SERVER.namespace}/server",
        "sourceIdentity": str(spiffe("client")),
        "service": service("web", "10.96.0.1").hostname,
        "responseFlags": "DENY",
        "error": "no (shop/p)",
        "meaning": "",
        "count": 3,
        "lastAt": "2026-01-01T00:00:02+00:00",
        "worker": 2,
    }


def test_a_stable_word_comes_with_its_meaning() -> None:
    recent = RecentRefusals()
    asked = Asked(parse_endpoint("10.96.0.1:81"))
    parties = replace(denied(), reporter=Reporter.SOURCE, original=asked)
    recent.add(parties, Flag.CONNECT, Reason.NO_SERVICE_PORT.word, NOW)
    (found,) = [each.view(0) for each in recent.all()]
    assert (found["dst"], found["direction"]) == ("10.96.0.1:81", "outbound")
    assert found["meaning"] == Reason.NO_SERVICE_PORT.meaning


def test_who_is_refused_again_and_again_pushes_out_its_own() -> None:
    recent = RecentRefusals()
    recent.add(denied(), Flag.DENY, "an honest one's", NOW)
    for port in range(1, 1000):
        recent.add(denied(port, "10.0.0.9"), Flag.DENY, "a scan's", NOW)
    shown = [each.view(0) for each in recent.all()]
    assert len(shown) == 1 + ENTRIES_MAX
    assert shown[0]["error"] == "an honest one's"
    assert shown[-1]["dst"] == "10.0.0.2:999"


def test_the_oldest_source_makes_room() -> None:
    recent = RecentRefusals()
    for number in range(SOURCES_MAX + 10):
        recent.add(denied(80, f"10.1.0.{number}"), Flag.DENY, "no", NOW)
    sources = [each.view(0)["src"] for each in recent.all()]
    assert len(sources) == SOURCES_MAX
    assert sources[0] == "10.1.0.10:40000"


def test_kept_are_those_that_never_opened_and_those_that_a_policy_cut() -> None:
    counters, clock = Counters(), FakeClock()
    for opens, flag, error in (
        (False, Flag.CONNECT, "unreachable"),
        (True, Flag.DENY, "a policy changed"),
        (True, Flag.CONNECT, "reset by the app"),
        (False, Flag.NONE, ""),
    ):
        outcome = Outcome(clock, denied(), None)
        if opens:
            outcome.opened(counters, lambda: (0, 0))
        outcome.closed(counters, flag, error)
    kept = [each.view(0)["error"] for each in counters.recent.all()]
    assert kept == ["unreachable", "a policy changed"]
