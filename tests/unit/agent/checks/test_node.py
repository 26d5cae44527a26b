"""Checks of a running agent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.checks import node

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def entry(identity: str, starts: timedelta, ends: timedelta) -> dict[str, object]:
    def text(moment: datetime) -> str:
        return moment.isoformat().replace("+00:00", "Z")

    chain = [{"validFrom": text(NOW + starts), "expirationTime": text(NOW + ends)}]
    return {"identity": identity, "state": "Available", "certChain": chain}


def test_certificates_that_are_old_or_missing_are_named() -> None:
    hour = timedelta(hours=1)
    dump = {
        "certificates": [
            entry("fresh", -hour, 23 * hour),
            entry("short", -hour / 60, hour / 60),  # two minutes long, half gone
            entry("late", -20 * hour, 4 * hour),
            entry("expired", -24 * hour, -hour),
            {"identity": "failed", "state": "Unavailable: refused", "certChain": []},
            {"identity": "asking", "state": "Initializing", "certChain": []},
        ]
    }
    found = list(node.certificates_in_trouble(dump, NOW))
    assert [line.split(":")[0] for line in found] == ["late", "expired", "failed"]


def test_map_pressure_starts_at_four_fifths() -> None:
    found = list(node.map_pressure([("a", 79, 100), ("b", 80, 100), ("c", 100, 100), ("d", 0, 0)]))
    assert [each.result.value for each in found] == ["ok", "warning", "error", "ok"]
    assert {each.code for each in found} == {"TUL0901"}
