"""More pods than a node may have: those beyond are refused with a reason, and get the next room."""

from __future__ import annotations

import time
from collections import Counter

from bpf.layout import PODS_MAX
from tests.bench.model import BenchError
from tests.bench.node.bed import PODS, ManyPods, wait
from tests.support.lab.crowd import CrowdPod, each_of

FULL_S, AGAIN_S = 180.0, 60.0
RETRIES_S = 12.0  # two turns of those that are refused: the log has one line of each


def run(bed: ManyPods, pods: list[CrowdPod]) -> dict[str, object]:
    """Seconds until the node is full, and until as many as have gone are replaced."""
    surplus = len(pods) - PODS_MAX
    if surplus <= 0:
        raise BenchError(f"--pods: more than {PODS_MAX}")
    log, begun_s = bed.log("agent"), time.monotonic()
    bed.label(enrolled=True)
    wait(lambda: log.read_text().count("pod.captured") >= PODS_MAX, "all the room taken", FULL_S)
    full_s = time.monotonic() - begun_s
    wait(lambda: _states(bed)["failed"] == surplus, "the rest refused", AGAIN_S)
    time.sleep(RETRIES_S)
    found = {"full_s": round(full_s, 1), "states": dict(_states(bed)), "reasons": _reasons(bed)}
    found["lines_of_failures"] = log.read_text().count("pod.failed")
    found["maps"] = {each["name"]: [each["used"], each["max"]] for each in bed.status()["maps"]}
    captured = {each["uid"] for each in bed.status()["pods"] if each["state"] == "captured"}
    gone = [pod for pod in pods if pod.uid in captured][:surplus]
    begun_s = time.monotonic()
    each_of(gone, bed.delete)
    wait(lambda: _states(bed)["failed"] == 0, "the others captured", AGAIN_S)
    found["captured_again"] = bed.captured()
    return found | {"again_full_s": round(time.monotonic() - begun_s, 1)}


def _states(bed: ManyPods) -> Counter[str]:
    return Counter(each["state"] for each in bed.status()["pods"] if each["namespace"] == PODS)


def _reasons(bed: ManyPods) -> dict[str, int]:
    pods = bed.status()["pods"]
    return dict(Counter(each["reason"] for each in pods if each["state"] == "failed"))
