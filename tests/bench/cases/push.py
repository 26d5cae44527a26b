"""10,000 workloads pushed while requests run: the price of the storm for the requests.

The pods are written into the folder that the control plane watches, so everything is real: reading,
compiling, delta xDS to both nodes, supervisor to worker. *During* is the time in which messages
arrived at a node, not that in which the control plane only read files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from agent.lab import plan
from tests.bench import manifests, meter, parse
from tests.bench.bed import Bed, tool_command
from tests.bench.cases.case import Case, Settings, Values
from tests.bench.manifests import NODE_A, NODE_B
from tests.bench.model import BenchError, System, Topology
from tests.bench.target import Target, direct_target

CONNECTIONS, PLAIN_CONNECTIONS = 12, 4
EVERY_US = 10_000  # 1,600 questions a second in all leave the load's core more than half free
BEFORE_S = 3.0
PUSH_TIMEOUT_S = 60.0
QUIET_S = 2.0  # after such a silence the push is over
LOOK_S = 0.1
MARGIN_S = 0.5  # work that follows the last message
NOISE_BYTES = 4096  # keep-alives and acknowledgements
BUSY_SHARE = 0.2
LONGEST_S = BEFORE_S + 2 * PUSH_TIMEOUT_S  # for the pods to go again
PROBE_END_S = 10.0
BYTES_PER_POD_MIN = 40  # fewer bytes to each node are not the push


@dataclass(frozen=True, slots=True)
class Times:
    start_s: float
    first_s: float
    last_s: float


def run(bed: Bed, target: Target, settings: Settings) -> Values:
    """Probes through the mesh, and some beside it, which show the machine's own disturbances."""
    plain = direct_target(bed, System.NONE, target.topology)
    files = list(manifests.pushed_pods(settings.pushed_pods))
    least_bytes = 2 * BYTES_PER_POD_MIN * settings.pushed_pods
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as plain_output:
        with (
            probing(bed, plain, PLAIN_CONNECTIONS, plain_output),
            probing(bed, target, CONNECTIONS, output),
        ):
            time.sleep(MARGIN_S)
            start_s = time.monotonic()
            time.sleep(BEFORE_S)
            with pushed(bed, files):
                times = Times(start_s, *_arrival(bed, least_bytes))
                time.sleep(MARGIN_S)
        before, during = _taken(output, times)
        _, machine = _taken(plain_output, times)
    was, became = parse.quantile(before, 0.99), parse.quantile(during, 0.99)
    return {
        "before_p99_us": was,
        "during_p99_us": became,
        "during_ratio": became / was,
        "stall_before_ms": before[-1] / 1e3,
        "stall_ms": during[-1] / 1e3,
        "machine_p99_us": parse.quantile(machine, 0.99),
        "machine_stall_ms": machine[-1] / 1e3,
        "push_s": times.last_s - times.first_s,
    }


@contextmanager
def probing(bed: Bed, target: Target, connections: int, output: IO[bytes]) -> Iterator[None]:
    """Run the probe; afterwards its answers are in `output`."""
    pace = ("--connections", connections, "--every-us", EVERY_US, "--until-eof")
    words = tool_command("probe.py", *target.echo, "--seconds", LONGEST_S, *pace)
    with bed.background(target.client, words, output) as probe:
        yield
        if probe.poll() is not None or probe.stdin is None:
            raise BenchError("a probe ended during the push")
        probe.stdin.close()
        probe.wait(PROBE_END_S)


def _taken(output: IO[bytes], times: Times) -> tuple[list[float], list[float]]:
    """Figures before and during the push."""
    output.seek(0)
    found = parse.samples(output.read().decode())
    return (
        found.between(times.start_s, times.start_s + BEFORE_S),
        found.between(times.first_s - MARGIN_S, times.last_s + MARGIN_S),
    )


@contextmanager
def pushed(bed: Bed, files: list[tuple[str, str]]) -> Iterator[None]:
    """The pods exist while the context lasts, and have left the nodes when it ends."""
    try:
        for name, text in files:
            bed.write(name, text)
        yield
    finally:
        for name, _ in files:
            bed.remove(name)
        _wait_quiet(bed)


@dataclass
class Storm:
    """A push under way, watched from outside: bytes on the control plane's link, and CPU time of
    the supervisors."""

    bed: Bed
    supervisors: list[int]
    sent_bytes: int
    supervisor_s: float

    @classmethod
    def of(cls, bed: Bed) -> Storm:
        nodes = (NODE_A, NODE_B)
        supervisors = [bed.state.processes[f"ztunnel-{node}"].pid for node in nodes]
        return cls(bed, supervisors, _sent(bed), _cpu_s(supervisors))

    def look(self) -> bool:
        """True when bytes were sent or a supervisor was busy since the last look."""
        sent, used_s = _sent(self.bed), _cpu_s(self.supervisors)
        is_sending = sent - self.sent_bytes > NOISE_BYTES
        is_busy = used_s - self.supervisor_s > BUSY_SHARE * LOOK_S
        self.sent_bytes, self.supervisor_s = sent, used_s
        return is_sending or is_busy


def _sent(bed: Bed) -> int:
    return meter.received_bytes(plan.router_netns(bed.state.lab), "to-control")


def _cpu_s(pids: list[int]) -> float:
    return sum(map(meter.process_cpu_s, pids))


def _arrival(bed: Bed, least_bytes: int) -> tuple[float, float]:
    """First and last moment at which the push was seen at work."""
    storm = Storm.of(bed)
    begin = storm.sent_bytes
    first_s = last_s = 0.0
    deadline_s = time.monotonic() + PUSH_TIMEOUT_S
    while time.monotonic() < deadline_s:
        time.sleep(LOOK_S)
        goes_on, now = storm.look(), time.monotonic()
        if goes_on:
            first_s, last_s = first_s or now - LOOK_S, now
        elif storm.sent_bytes - begin > least_bytes and now - last_s > QUIET_S:
            return first_s, last_s
    raise BenchError(
        f"{storm.sent_bytes - begin:,} bytes of the push came within {PUSH_TIMEOUT_S:.0f} s"
    )


def _wait_quiet(bed: Bed) -> None:
    """Wait until the pods have left the nodes: the next case starts as this one did."""
    storm, since_s = Storm.of(bed), time.monotonic()
    deadline_s = since_s + PUSH_TIMEOUT_S
    while time.monotonic() < deadline_s and time.monotonic() - since_s < 2 * QUIET_S:
        time.sleep(LOOK_S)
        if storm.look():
            since_s = time.monotonic()


CASES = (
    Case(
        "push",
        "a push of 10,000 workloads during load",
        run,
        systems=(System.TULLE,),
        topologies=(Topology.CROSS,),
        once=True,
        leaves_traces=True,
    ),
)
