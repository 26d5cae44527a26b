from __future__ import annotations

from typing import Any

import pytest

from agent.cli.cluster import rollout
from agent.cli.cluster.rollout import Part


def workload(spec: dict[str, int], generation: int = 2, **status: int) -> dict[str, Any]:
    return {"metadata": {"generation": generation}, "spec": spec, "status": status}


SEEN = {"observedGeneration": 2}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, Part("x", 0, 2)),
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, Part("x", 2, 2)),
        (SEEN | {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}, Part("x", 1, 2)),
        (SEEN | {"replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}, Part("x", 2, 2)),
        (
            SEEN | {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
            Part("x", 2, 2, True),
        ),
    ],
)
def test_a_deployment_is_done_when_only_new_pods_are_left(
    status: dict[str, int], expected: Part
) -> None:
    assert rollout.deployment("x", workload({"replicas": 2}, **status)) == expected


def test_a_daemon_set_is_done_on_every_node() -> None:
    counts = {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}
    assert rollout.daemon_set("x", workload({}, **SEEN, **counts)) == Part("x", 2, 3)
    counts["numberAvailable"] = 3
    assert rollout.daemon_set("x", workload({}, **SEEN, **counts)).is_done
    assert not rollout.daemon_set("x", workload({}, **counts)).is_done


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"nodeName": "n"}, "status": status}


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"name": "c", "state": {"waiting": {"reason": reason, "message": message}}, **more}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, ""),
        ({"containerStatuses": [waiting("ContainerCreating")]}, ""),
        (
            {"containerStatuses": [waiting("ErrImagePull", "no  such\nimage")]},
            "container c: ErrImagePull: no such image",
        ),
        (
            {
                "containerStatuses": [
                    waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 2}})
                ]
            },
            "container c: CrashLoopBackOff, exit code 2",
        ),
        (
            {
                "initContainerStatuses": [waiting("ErrImagePull")],
                "containerStatuses": [waiting("PodInitializing")],
            },
            "container c: ErrImagePull",
        ),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/2 nodes",
                    }
                ]
            },
            "Unschedulable: 0/2 nodes",
        ),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
    ],
)
def test_a_pod_that_does_not_get_on_says_why(status: dict[str, Any], said: str) -> None:
    assert rollout.trouble(pod("p", **status)) == said


def test_only_the_first_pods_are_told() -> None:
    stuck = [pod(f"p{n}", containerStatuses=[waiting("ErrImagePull")]) for n in range(8)]
    told = rollout.troubles(stuck)
    assert told[0] == "p0 on n: container c: ErrImagePull"
    assert told[-1] == "… and 3 more pods"
