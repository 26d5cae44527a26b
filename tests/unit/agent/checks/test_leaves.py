"""Certificates that are expired, missing or late are told, and no others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.checks.leaves import certificates_in_trouble

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def entry(
    identity: str, starts: timedelta, ends: timedelta, received: timedelta | None = None
) -> dict[str, object]:
    def text(moment: datetime) -> str:
        return moment.isoformat().replace("+00:00", "Z")

    chain = [{"validFrom": text(NOW + starts), "expirationTime": text(NOW + ends)}]
    made: dict[str, object] = {"identity": identity, "state": "Available", "certChain": chain}
    return made if received is None else made | {"receivedAt": text(NOW + received)}


def test_certificates_that_are_old_or_missing_are_named() -> None:
    hour = timedelta(hours=1)
    dump = {
        "certificates": [
            entry("fresh", -hour, 23 * hour),
            entry("short", -hour / 60, hour / 60),  # two minutes long, half gone
            entry("dated back", -hour, hour / 120, received=-hour / 120),  # a minute, half gone
            entry("late", -20 * hour, 4 * hour),
            entry("late too", -hour, hour / 600, received=-hour / 60),
            entry("expired", -24 * hour, -hour),
            {"identity": "failed", "state": "Unavailable: refused", "certChain": []},
            {"identity": "asking", "state": "Initializing", "certChain": []},
        ]
    }
    found = list(certificates_in_trouble(dump, NOW))
    assert [line.split(":")[0] for line in found] == ["late", "late too", "expired", "failed"]
