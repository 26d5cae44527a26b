"""Every step against a cluster in memory: a sound one, and ones with one fault each."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.e2e import steps
from tests.e2e.__main__ import carry_out
from tests.e2e.claims import Claims
from tests.e2e.cluster import MESH, PLAIN, SYSTEM, Cluster, Settings
from tests.e2e.kubectl import CommandFailed
from tests.support.clock import FakeClock

NODES = ("n1", "n2")
RESET = "exit 1: http://x/ refused: reset"


class World:
    """Answers of kubectl about a cluster where all is well, but for `faults`."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        self.applied: set[str] = set()
        self.mode, self.policy, self.rolled = "", False, 0
        self.labels: dict[str, dict[str, str]] = {}
        self.objects: dict[str, dict[str, Any]] = {}

    def __call__(self, *words: str, text: str = "", timeout_s: float = 0) -> str:
        if words[0] == "delete" and "client-only" in text:
            self.policy = False
        if words[:2] == ("rollout", "restart"):
            self.rolled += 1
        return ""

    def apply(self, text: str) -> None:
        for each in yaml.safe_load_all(text):
            meta = each["metadata"]
            match each["kind"]:
                case "Namespace":
                    self.labels[meta["name"]] = meta["labels"]
                case "PeerAuthentication":
                    self.mode = "STRICT"
                case "AuthorizationPolicy":
                    self.policy = True
                case _:
                    self.objects[f"{each['kind']} {meta['name']}"] = each

    def rolled_out(self, namespace: str, workload: str, timeout_s: float) -> None:
        if "slow rollout" in self.faults:
            raise CommandFailed("exit 1: timed out")

    def items(self, kind: str, namespace: str = "", selector: str = "") -> list[dict[str, Any]]:
        match kind:
            case "pods" if namespace == SYSTEM:
                return [pod(f"agent-{node}", node, {}) for node in NODES]
            case "pods":
                found = [each for each in self.pods() if each["metadata"]["namespace"] == namespace]
                return [each for each in found if wears(each, selector)]
            case "services":
                meta = {"name": "server"}
                return [{"metadata": meta, "spec": {"clusterIPs": ["10.9.0.1", "fd09::1"]}}]
            case "jobs":
                jobs = [each for each in self.objects.values() if each["kind"] == "Job"]
                lost = 1 if "jobs" in self.faults else 0
                return [{**each, "status": done(each, lost)} for each in jobs]
            case _:
                return []

    def pods(self) -> list[dict[str, Any]]:
        found = []
        for each in self.objects.values():
            meta = each["metadata"]
            if each["kind"] == "DaemonSet":
                template = each["spec"]["template"]
                labels, spec = template["metadata"]["labels"], template["spec"]
                found += [
                    pod(f"{meta['name']}-{n}", n, labels, meta["namespace"], spec) for n in NODES
                ]
            elif each["kind"] == "Pod":
                labels = meta.get("labels", {})
                found.append(pod(meta["name"], "n1", labels, meta["namespace"], each["spec"]))
        return found

    def exec(self, namespace: str, name: str, *words: str, timeout_s: float = 0) -> str:
        if words[0] == "find":
            return "/host/cni/00-tulle.conflist\n" if "leftovers" in self.faults else ""
        if words[0] == "cat":
            return self._counts()
        if words[1] == "-c":
            return json.dumps(self._status(name.removeprefix("agent-")))
        if not self._may(namespace, name):
            raise CommandFailed(RESET)
        return ""

    def _may(self, namespace: str, name: str) -> bool:
        strange = namespace == PLAIN
        if self.policy and (strange or not name.startswith("client")):
            return "open policy" in self.faults
        if self.mode == "STRICT" and strange:
            return "open STRICT" in self.faults
        return True

    def _counts(self) -> str:
        """More at each look, as callers go on."""
        self.looks = getattr(self, "looks", 0) + 1
        failed = self.rolled if "failed requests" in self.faults else 0
        broken = self.rolled if "broken" in self.faults else 0
        counts = {"answered": 500 * self.looks, "failed": failed, "echoed": 9, "broken": broken}
        return json.dumps({**counts, "last": ""})

    def _status(self, node: str) -> dict[str, Any]:
        is_known = not (node == "n2" and "kubelet" in self.faults)
        reason = "" if is_known else "root_cgroup"
        state = "captured" if self.labels.get(MESH) else "not_enrolled"
        if "capture" in self.faults:
            state = "pending"
        pods = [
            {"name": each["metadata"]["name"], "state": state}
            for each in self.pods()
            if each["spec"]["nodeName"] == node and each["metadata"]["namespace"] == MESH
        ]
        return {"kubelet": {"recognised": is_known, "reason": reason}, "pods": pods}


def pod(
    name: str, node: str, labels: Any, namespace: str = SYSTEM, spec: Any = None
) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {**(spec or {}), "nodeName": node},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [ready],
            "containerStatuses": [{"restartCount": 0}],
        },
    }


def done(job: dict[str, Any], lost: int) -> dict[str, int]:
    return {"succeeded": job["spec"]["completions"] - lost, "failed": lost}


def wears(each: dict[str, Any], selector: str) -> bool:
    key, _, value = selector.partition("=")
    return not selector or each["metadata"]["labels"].get(key) == value


def run(*faults: str) -> tuple[Claims, World]:
    clock = FakeClock()
    world: Any = World(*faults)
    cluster = Cluster(world, Settings("tulle:1"))
    claims = Claims(lambda line: None, clock.monotonic_s, clock.pass_s)
    carry_out(claims, cluster, list(steps.STEPS))
    claims.begin("uninstall")
    world.mode = ""  # the policies have gone, too
    steps.left(claims, cluster, {})
    return claims, world


def test_every_claim_holds_on_a_sound_cluster() -> None:
    claims, world = run()
    assert [each for each in claims.outcomes if each.wrong] == []
    assert {each.step for each in claims.outcomes} == {*steps.STEPS, "uninstall"}
    assert world.rolled == 3  # agents, ztunnels, and pods that are new afterwards
    figures = [each.figure for each in claims.outcomes if "requests answered" in each.figure]
    assert len(figures) == 5


@pytest.mark.parametrize(
    ("fault", "step", "claim"),
    [
        ("capture", "enrol", "running pods are captured in place"),
        ("open policy", "policy", "stranger is refused"),
        ("open STRICT", "strict", "host-n1 is refused"),
        ("kubelet", "probes", "every agent recognises its kubelet"),
        ("jobs", "early", "a Job's first call succeeds, six times"),
        ("jobs", "churn", "twenty Jobs at once, each call succeeds"),
        ("open STRICT", "churn", "the stranger is refused"),
        ("slow rollout", "ztunnels", "tulle-ztunnel is rolled out"),
        ("failed requests", "ztunnels", "no request fails while the ztunnels are replaced"),
        ("broken", "agents", "open connections while the agents are replaced"),
        ("leftovers", "uninstall", "nothing is left on the nodes"),
    ],
)
def test_a_fault_of_the_cluster_is_a_failed_claim(fault: str, step: str, claim: str) -> None:
    claims, _ = run(fault)
    assert (step, claim) in {(each.step, each.claim) for each in claims.outcomes if each.wrong}
