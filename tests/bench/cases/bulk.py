"""Bulk with iperf3: one stream and four, towards the server and back."""

from __future__ import annotations

import time
from functools import partial

from tests.bench import parse
from tests.bench.bed import Bed
from tests.bench.cases.case import GRACE_S, Case, Settings, Values
from tests.bench.model import BenchError
from tests.bench.target import Target, difference

BUSY_TRIES = 20  # the server takes one test at a time and needs a moment to see the last one's end
BUSY_PAUSE_S = 0.25


def command(target: Target, streams: int, seconds: float, *, back: bool) -> list[str]:
    host, port = target.bulk
    flags = [
        "-P",
        str(streams),
        "-t",
        str(max(1, round(seconds))),
        "-J",
        "--connect-timeout",
        "5000",
    ]
    return ["iperf3", "-c", host, "-p", str(port), *flags, *(["-R"] if back else [])]


def run(streams: int, back: bool, bed: Bed, target: Target, settings: Settings) -> Values:
    words = command(target, streams, settings.seconds, back=back)
    for _ in range(BUSY_TRIES):
        before = target.cpu_s()
        try:
            rate = parse.iperf(bed.run(target.client, words, settings.seconds + GRACE_S))
        except BenchError as exc:
            if "busy" not in str(exc):
                raise
            time.sleep(BUSY_PAUSE_S)
            continue
        used = difference(target.cpu_s(), before)
        gbit = rate * max(1, round(settings.seconds))
        return {"gbit_s": rate} | {
            f"cpu_{side}_ms_per_gbit": each / gbit * 1e3 for side, each in used.items()
        }
    raise BenchError("the iperf3 server stays busy")


CASES = (
    Case("bulk1", "bulk, 1 stream towards the server", partial(run, 1, False)),
    Case("bulk1r", "bulk, 1 stream back", partial(run, 1, True)),
    Case("bulk4", "bulk, 4 streams towards the server", partial(run, 4, False)),
    Case("bulk4r", "bulk, 4 streams back", partial(run, 4, True)),
)
