"""64 small requesters beside 4 bulk streams: what the bulk costs the small ones."""

from __future__ import annotations

import subprocess
import time

from tests.bench import parse
from tests.bench.bed import Bed
from tests.bench.cases import bulk, requests
from tests.bench.cases.case import GRACE_S, Case, Settings, Values
from tests.bench.model import BenchError, Topology
from tests.bench.target import Target

CONNECTIONS, STREAMS = 64, 4
RAMP_S = 0.5  # bulk before and after the requests, so that it is there all the time


def run(bed: Bed, target: Target, settings: Settings) -> Values:
    seconds = max(1, round(settings.seconds))
    alone = requests.load(bed, target, CONNECTIONS, seconds)
    words = bulk.command(target, STREAMS, seconds + 2 * RAMP_S, back=False)
    with bed.background(target.client, words, subprocess.PIPE) as transfer:
        time.sleep(RAMP_S)
        beside = requests.load(bed, target, CONNECTIONS, seconds)
        if transfer.poll() is not None:
            raise BenchError("the bulk transfer ended before the requests did")
        try:
            text, _ = transfer.communicate(timeout=2 * RAMP_S + GRACE_S)
        except subprocess.TimeoutExpired as exc:
            raise BenchError("the bulk transfer did not end") from exc
    return {
        "alone_p99_us": alone.p99_us,
        "beside_p99_us": beside.p99_us,
        "p99_ratio": beside.p99_us / alone.p99_us,
        "beside_rps": beside.rps,
        "bulk_gbit_s": parse.iperf(text.decode(errors="replace")),
    }


CASES = (
    Case(
        "fairness",
        "64 small requesters beside 4 bulk streams",
        run,
        topologies=(Topology.CROSS,),
    ),
)
