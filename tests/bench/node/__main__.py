"""One node with many pods: enrolment at once, a ztunnel's restart, pods that come and go.

    python -m tests.bench.node [--pods 200] [--workers 1] [enrol restart roll churn leak full …]

As root. The lab is its own; a run takes a minute and more, `churn` as long as it is told.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable

from tests.bench.node import churn, full, leak, steps
from tests.bench.node.bed import ManyPods, many_pods
from tests.support.lab.crowd import CrowdPod

Step = Callable[[ManyPods, list[CrowdPod]], dict[str, object]]


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the lab is taken down
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", default=["enrol", "restart", "roll"])
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=20.0, help="new pods a second")
    parser.add_argument("--seconds", type=float, default=120.0, help="of churn; leak: at most")
    parser.add_argument("--count", type=int, default=10_000, help="pods of `leak`")
    options = parser.parse_args()

    def churned(bed: ManyPods, pods: list[CrowdPod]) -> dict[str, object]:
        return churn.run(bed, options.rate, options.seconds)

    def leaked(bed: ManyPods, pods: list[CrowdPod]) -> dict[str, object]:
        return leak.run(bed, options.count, options.seconds)

    known: dict[str, Step] = {
        "enrol": steps.enrol,
        "restart": steps.restart,
        "roll": steps.roll,
        "churn": churned,
        "leak": leaked,
        "full": full.run,
        "rest": steps.rest,
    }
    with many_pods(options.pods, options.workers) as (bed, pods):
        for name in ["rest", *options.steps]:
            before = steps.cpu_s(bed)
            found = known[name](bed, pods)
            found["cpu_s"] = steps.difference(steps.cpu_s(bed), before)
            sys.stdout.write(f"{name:>8}  {json.dumps(found)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
