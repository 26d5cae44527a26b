"""Workload certificates of a ztunnel's dump that are missing, expired or late. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

CERTIFICATE_LEFT_WARNING = timedelta(hours=6)  # renewed at half of 24 h: far behind by now


def certificates_in_trouble(dump: Any, now: datetime) -> Iterator[str]:
    """A line for each certificate in a ztunnel's config dump that is missing, expired or late."""
    for entry in dump.get("certificates", []):
        chain = entry.get("certChain") or []
        if not chain:
            if entry.get("state") not in (None, "Available", "Initializing"):
                yield f"{entry['identity']}: {entry['state']}"
            continue
        expires_at = datetime.fromisoformat(chain[0]["expirationTime"].replace("Z", "+00:00"))
        # Not the leaf's own start, which may lie before the request: by that, leaves of a minute
        # would always be late.
        started = entry.get("receivedAt") or chain[0]["validFrom"]
        starts_at = datetime.fromisoformat(started.replace("Z", "+00:00"))
        left = expires_at - now
        if left <= timedelta(0):
            yield f"{entry['identity']}: expired {expires_at.isoformat()}"
        elif left < min(CERTIFICATE_LEFT_WARNING, (expires_at - starts_at) / 4):
            yield f"{entry['identity']}: expires {expires_at.isoformat()}, not renewed"
