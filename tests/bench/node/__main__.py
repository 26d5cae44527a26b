"""One node with many pods: enrolment at once, a ztunnel's restart, pods that come and go.

    python -m tests.bench.node [--pods 200] [--workers 1] [enrol restart roll churn …]

As root. The lab is its own; a run takes a minute and more, `churn` as long as it is told.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from tests.bench.node import churn, steps
from tests.bench.node.bed import Made, ManyPods, many_pods

Step = Callable[[ManyPods, list[Made]], dict[str, object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", default=["enrol", "restart", "roll"])
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=20.0, help="new pods a second")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the churn")
    options = parser.parse_args()

    def churned(bed: ManyPods, pods: list[Made]) -> dict[str, object]:
        return churn.run(bed, options.rate, options.seconds)

    known: dict[str, Step] = {
        "enrol": steps.enrol,
        "restart": steps.restart,
        "roll": steps.roll,
        "churn": churned,
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
