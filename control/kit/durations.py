"""Durations as people write them on a command line: `5s`, `150ms`, `24h`, `7d`."""

from __future__ import annotations

import re

from control.kit.errors import ConfigError

_SYNTAX = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s|m|h|d)?")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: str) -> float:
    """Seconds of `5s`, `150ms`, `1.5h`, or of a bare number of seconds; ConfigError otherwise."""
    found = _SYNTAX.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is not a duration (like 5s, 150ms, 24h)")
    return float(found[1]) * _UNIT_S[found[2] or "s"]
