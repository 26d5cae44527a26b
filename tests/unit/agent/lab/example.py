"""Pods of an example lab, as they stand in its working copy."""

from __future__ import annotations

from typing import Any

from agent.lab import objects, plan


def placed_pod(name: str, ready: bool, number: int) -> dict[str, Any]:
    value = {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "labels": {"app": "web", "v": name}},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
    }
    address = plan.pod_address(1, [f"10.71.1.{one}" for one in range(2, number + 2)])
    return objects.placed(
        value, node="n1", host=plan.uplink(1), address=address, uid=name, ready=ready
    )
