"""64 small requesters beside 4 bulk streams: the price of the bulk for the small ones.

The bulk's own ends run only when their core has nothing else to do (SCHED_IDLE): so the requests
queue behind bulk in the proxies, which are measured, and not in the load generator's core.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import meter, parse
from tests.bench.bed import Bed
from tests.bench.cases import bulk, requests
from tests.bench.cases.case import GRACE_S, Case, Settings, Values
from tests.bench.model import BenchError, Topology
from tests.bench.target import Target, server_of

CONNECTIONS, STREAMS = 64, 4
RAMP_S = 0.5  # bulk before and after the requests, so that it is there all the time


def run(bed: Bed, target: Target, settings: Settings) -> Values:
    seconds = max(1, round(settings.seconds))
    alone = requests.load(bed, target, CONNECTIONS, seconds)
    words = bulk.command(target, STREAMS, seconds + 2 * RAMP_S, back=False)
    server = f"{target.client.partition('/')[0]}/{server_of(target.topology)}"
    with (
        yielding(bed.pod_cgroup(server), "iperf3"),
        bed.background(target.client, ["chrt", "--idle", "0", *words], subprocess.PIPE) as transfer,
    ):
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


@contextmanager
def yielding(cgroup: Path, program: str) -> Iterator[None]:
    """Let the pod's processes of this name give way to all others while the context lasts."""
    chosen = [pid for pid in meter.members(cgroup) if meter.program_of(pid) == program]
    try:
        for pid in chosen:
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        for pid in chosen:
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


CASES = (
    Case(
        "fairness",
        "64 small requesters beside 4 bulk streams",
        run,
        topologies=(Topology.CROSS,),
    ),
)
