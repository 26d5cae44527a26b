"""Checks: what each says of a node that is well, and of one that is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import check
from agent.check import Result

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("release", "result"),
    [
        ("5.15.0-91-generic", Result.OK),
        ("6.18.44", Result.OK),
        ("5.10.0-28-amd64", Result.ERROR),
        ("weird", Result.ERROR),
    ],
)
def test_kernel_version(release: str, result: Result) -> None:
    found = check.kernel_version(release)
    assert (found.code, found.result) == ("TUL0101", result)
    assert bool(found.hint) == (result is not Result.OK)


def test_cgroup2_pure_hybrid_and_missing(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    pure = f"cgroup2 {tmp_path} cgroup2 rw 0 0\n"
    assert check.cgroup2(None, f"tmpfs /sys/fs/cgroup tmpfs ro 0 0\n{pure}").result is Result.OK
    assert check.cgroup2(None, "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n").error
    assert check.cgroup2(tmp_path / "elsewhere").error


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
            entry("short", -hour / 60, hour / 60),  # of a rotation test: two minutes, half gone
            entry("late", -20 * hour, 4 * hour),
            entry("expired", -24 * hour, -hour),
            {"identity": "failed", "state": "Unavailable: refused", "certChain": []},
            {"identity": "asking", "state": "Initializing", "certChain": []},
        ]
    }
    found = list(check.certificates_in_trouble(dump, NOW))
    assert [line.split(":")[0] for line in found] == ["late", "expired", "failed"]


def test_map_pressure_starts_at_four_fifths() -> None:
    found = list(check.map_pressure([("a", 79, 100), ("b", 80, 100), ("c", 100, 100), ("d", 0, 0)]))
    assert [each.result.value for each in found] == ["ok", "warning", "error", "ok"]
    assert {each.code for each in found} == {"TUL0901"}


def test_a_check_is_json() -> None:
    found = check.kernel_version("1.0").as_json()
    assert set(json.loads(json.dumps(found))) == {
        "code",
        "category",
        "description",
        "result",
        "error",
        "hint",
    }
