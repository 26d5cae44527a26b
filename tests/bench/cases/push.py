"""10,000 workloads pushed while requests run: what the configuration storm costs them.

The pods are written into the folder that the control plane watches, so everything is real: reading,
compiling, delta xDS to both nodes, supervisor to worker. *During* is the time in which messages
arrived at a node, not that in which the control plane only read files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench import manifests, parse
from tests.bench.bed import Bed, tool_command
from tests.bench.cases.case import Case, Settings, Values
from tests.bench.manifests import NODE_A, NODE_B
from tests.bench.model import BenchError, System, Topology
from tests.bench.target import Target

CONNECTIONS, EVERY_US = 16, 10_000  # 1,600 questions a second leave the load's core half free
BEFORE_S = 3.0
PUSH_TIMEOUT_S = 60.0
QUIET_S = 2.0  # so long without a message: the push is over
LOOK_S = 0.25
MARGIN_S = 0.5  # between two looks at the counters, and work that follows the last message
BYTES_PER_POD_MIN = 40  # a push of fewer bytes was not the push
_MESSAGES = "istio_xds_message_bytes_total"


def run(bed: Bed, target: Target, settings: Settings) -> Values:
    host, port = target.echo
    longest_s = BEFORE_S + PUSH_TIMEOUT_S + QUIET_S + 3 * MARGIN_S
    pace = ("--connections", CONNECTIONS, "--every-us", EVERY_US, "--until-eof")
    words = tool_command("probe.py", host, port, "--seconds", longest_s, *pace)
    files = list(manifests.pushed_pods(settings.pushed_pods))
    with tempfile.TemporaryFile() as output:
        with bed.background(target.client, words, output) as probe:
            time.sleep(MARGIN_S)
            start_s = time.monotonic()
            time.sleep(BEFORE_S)
            with pushed(bed, files):
                first_s, last_s = _arrival(bed, settings.pushed_pods)
                time.sleep(MARGIN_S)
                if probe.poll() is not None or probe.stdin is None:
                    raise BenchError("the probe ended during the push")
                probe.stdin.close()
                probe.wait(10)
        output.seek(0)
        found = parse.samples(output.read().decode())
    before = found.between(start_s, start_s + BEFORE_S)
    during = found.between(first_s - MARGIN_S, last_s + MARGIN_S)
    was, became = parse.quantile(before, 0.99), parse.quantile(during, 0.99)
    return {
        "before_p99_us": was,
        "during_p99_us": became,
        "during_ratio": became / was,
        "stall_before_ms": before[-1] / 1e3,
        "stall_ms": during[-1] / 1e3,
        "push_s": last_s - first_s,
    }


@contextmanager
def pushed(bed: Bed, files: list[tuple[str, str]]) -> Iterator[None]:
    """There while the context lasts; on leaving, gone from the nodes as well."""
    begin = _bytes(bed)
    try:
        for name, text in files:
            bed.write(name, text)
        yield
    finally:
        for name, _ in files:
            bed.remove(name)
        if _bytes(bed) > begin:
            _wait_quiet(bed)


def _arrival(bed: Bed, pods: int) -> tuple[float, float]:
    """When the first and the last message of the push were seen."""
    begin = seen = _bytes(bed)
    first_s = last_s = 0.0
    deadline_s = time.monotonic() + PUSH_TIMEOUT_S
    while time.monotonic() < deadline_s:
        time.sleep(LOOK_S)
        now, total = time.monotonic(), _bytes(bed)
        if total > seen:
            first_s, last_s, seen = first_s or now - LOOK_S, now, total
        elif first_s and now - last_s > QUIET_S:
            if (seen - begin) / 2 < pods * BYTES_PER_POD_MIN:
                raise BenchError(f"only {seen - begin:.0f} bytes of the push came")
            return first_s, last_s
    raise BenchError(f"the push did not come to an end within {PUSH_TIMEOUT_S:.0f} s")


def _wait_quiet(bed: Bed) -> None:
    seen, since_s = _bytes(bed), time.monotonic()
    deadline_s = since_s + PUSH_TIMEOUT_S
    while time.monotonic() - since_s < QUIET_S and time.monotonic() < deadline_s:
        time.sleep(LOOK_S)
        if (total := _bytes(bed)) > seen:
            seen, since_s = total, time.monotonic()


def _bytes(bed: Bed) -> float:
    pages = (bed.metrics(node) for node in (NODE_A, NODE_B))
    return sum(sum(parse.counter(page, _MESSAGES).values()) for page in pages)


CASES = (
    Case(
        "push",
        "a push of 10,000 workloads during load",
        run,
        systems=(System.TULLE,),
        topologies=(Topology.CROSS,),
        once=True,
    ),
)
