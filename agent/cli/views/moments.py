"""Moments of the pages as people read them: ages, durations, seconds. Pure."""

from __future__ import annotations

from datetime import datetime

from agent.cli.mesh import MeshDump


def age(mesh: MeshDump, text: str | None) -> str | None:
    """Time that had passed since the moment `text` when the pages were read."""
    return time_since(text, mesh.taken_at)


def time_since(text: str | None, now: datetime) -> str | None:
    return duration((now - moment(text)).total_seconds()) if text else None


def to_the_second(text: str | None) -> str | None:
    return moment(text).strftime("%Y-%m-%dT%H:%M:%SZ") if text else None


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def duration(seconds: float) -> str:
    """Two parts at most: 3s, 4m10s, 2h5m, 3d4h."""
    if seconds < 0:
        return "-" + duration(-seconds)
    total = int(seconds)
    for unit, size, lower, lower_size in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if total >= size:
            rest = total % size // lower_size
            return f"{total // size}{unit}" + (f"{rest}{lower}" if rest else "")
    return f"{total}s"
