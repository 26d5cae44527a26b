"""HTTP requests of 1 KiB answers: few and many kept-alive connections, and a new one for each."""

from __future__ import annotations

from tests.bench import parse
from tests.bench.bed import Bed
from tests.bench.cases.case import GRACE_S, Case, Settings, Values
from tests.bench.target import Target, difference

CLOSE = ("-H", "Connection: close")
CLOSING_CONNECTIONS = 16


def load(bed: Bed, target: Target, connections: int, seconds: float, *extra: str) -> parse.Wrk:
    """One run of wrk, without other measurements."""
    return parse.wrk(
        bed.run(target.client, command(target, connections, seconds, *extra), seconds + GRACE_S)
    )


def command(target: Target, connections: int, seconds: float, *extra: str) -> list[str]:
    whole = max(1, round(seconds))  # wrk knows whole seconds only
    flags = ["-t1", f"-c{connections}", f"-d{whole}s", "--latency", "--timeout", "5s"]
    return ["wrk", *flags, *extra, target.url]


def measured(bed: Bed, target: Target, connections: int, settings: Settings, *extra: str) -> Values:
    before = target.cpu_s()
    got = load(bed, target, connections, settings.seconds, *extra)
    used = difference(target.cpu_s(), before)
    values: Values = {"rps": got.rps, "p50_us": got.p50_us, "p99_us": got.p99_us}
    values |= {f"cpu_{side}_us": each / got.requests * 1e6 for side, each in used.items()}
    return values | target.rss_mib()


def one(bed: Bed, target: Target, settings: Settings) -> Values:
    return measured(bed, target, 1, settings)


def many(bed: Bed, target: Target, settings: Settings) -> Values:
    return measured(bed, target, 64, settings)


def closing(bed: Bed, target: Target, settings: Settings) -> Values:
    return measured(bed, target, CLOSING_CONNECTIONS, settings, *CLOSE)


CASES = (
    Case("c1", "1 kept-alive connection, 1 KiB", one),
    Case("c64", "64 kept-alive connections, 1 KiB", many),
    Case("close", "a new connection for each request, 16 at once", closing),
)
