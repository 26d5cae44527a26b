"""64 bytes there and back on one connection: the duration of the way itself."""

from __future__ import annotations

from tests.bench import parse
from tests.bench.bed import Bed
from tests.bench.cases.case import GRACE_S, Case, Settings, Values
from tests.bench.target import Target


def run(bed: Bed, target: Target, settings: Settings) -> Values:
    host, port = target.echo
    text = bed.tool(
        target.client,
        "probe.py",
        *(host, port, "--seconds", settings.seconds),
        timeout_s=settings.seconds + GRACE_S,
    )
    took = sorted(parse.samples(text).took_us)
    return {
        "rps": len(took) / settings.seconds,
        "p50_us": parse.quantile(took, 0.5),
        "p99_us": parse.quantile(took, 0.99),
    }


CASES = (Case("pingpong", "64 bytes there and back, 1 connection", run),)
