"""Reads what wrk, iperf3 and our own probes print. Pure: text in, figures out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.model import BenchError

_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
# Share of missing answers above which the figures mean something else.
_ERROR_SHARE_MAX = 0.001


@dataclass(frozen=True, slots=True)
class Wrk:
    requests: int
    rps: float
    p50_us: float
    p99_us: float


def wrk(text: str) -> Wrk:
    """`wrk --latency`. Failed requests beyond a few are an error, not a good rate."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    count = re.search(r"(\d+) requests in", text)
    if rate is None or count is None or int(count[1]) == 0:
        raise BenchError(f"wrk got no answers: {text.strip()[-400:]}")
    requests = int(count[1])
    errors = _ERRORS.search(text)
    failed = sum(map(int, errors.groups())) if errors else 0
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed += int(statuses[1]) if statuses else 0
    if failed > max(1, requests * _ERROR_SHARE_MAX):
        raise BenchError(f"wrk: {failed} of {requests} requests failed")
    return Wrk(requests, float(rate[1]), _percentile(text, 50), _percentile(text, 99))


def _percentile(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    if found is None:
        raise BenchError("wrk told no latencies")
    return float(found[1]) * _US[found[2]]


def iperf(text: str) -> float:
    """Gbit/s at the receiver, from `iperf3 -J`."""
    try:
        told: Any = json.loads(text)
    except json.JSONDecodeError as exc:
        raise BenchError(f"iperf3 printed no JSON: {text.strip()[-200:]}") from exc
    if "error" in told:
        raise BenchError(f"iperf3: {told['error']}")
    try:
        return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9
    except (KeyError, TypeError) as exc:
        raise BenchError("iperf3 told no sum") from exc


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ascending values that `share` of them do not exceed."""
    if not ordered:
        raise BenchError("no samples")
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


@dataclass(frozen=True, slots=True)
class Samples:
    """When each answer of a probe came (CLOCK_MONOTONIC) and how long it took."""

    at_s: tuple[float, ...]
    took_us: tuple[float, ...]

    def between(self, start_s: float, end_s: float) -> list[float]:
        """Durations in ascending order."""
        pairs = zip(self.at_s, self.took_us, strict=True)
        return sorted(took for at, took in pairs if start_s <= at < end_s)


def samples(text: str) -> Samples:
    """One answer a line: time in seconds, duration in microseconds."""
    rows = [line.split() for line in text.splitlines() if line]
    try:
        return Samples(
            tuple(float(at) for at, _ in rows),
            tuple(float(took) for _, took in rows),
        )
    except ValueError as exc:
        raise BenchError(f"a probe printed {text[:200]!r}") from exc


def counter(page: str, name: str, label: str = "") -> dict[str, float]:
    """A metric of a Prometheus page, summed by the value of `label` ("" where it has none)."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] != name:
            continue
        said = re.search(rf'[{{,]{re.escape(label)}="([^"]*)"', head) if label else None
        key = said[1] if said else ""
        found[key] = found.get(key, 0.0) + float(value)
    return found
