"""Answers of a cluster as what the steps ask: readiness, restarts, counts. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

Object = dict[str, Any]


def names(pods: Iterable[Object]) -> list[str]:
    """Names of the pods that are there to stay."""
    return sorted(
        pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
    )


def not_ready(pods: Iterable[Object]) -> str:
    """The pods that are not Ready, as one line; empty when all are, and there are some."""
    found = list(pods)
    waiting = [pod["metadata"]["name"] for pod in found if not is_ready(pod)]
    if not found:
        return "no pods"
    return f"not ready: {', '.join(sorted(waiting))}" if waiting else ""


def last_warning(events: Iterable[Object], name: str) -> str:
    """The newest warning about the object of that name."""
    about = [
        each
        for each in events
        if each.get("type") == "Warning" and each["involvedObject"].get("name") == name
    ]
    about.sort(key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
    return str(about[-1].get("message", "")) if about else ""


def is_ready(pod: Object) -> bool:
    condition = ready_condition(pod)
    return condition is not None and condition["status"] == "True"


def ready_condition(pod: Object) -> Object | None:
    conditions = pod.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == "Ready"), None)


@dataclass(frozen=True, slots=True)
class Steadiness:
    """A pod's readiness and restarts; equal twice: nothing happened in between."""

    ready_since: str
    restarts: int


def steadiness(pods: Iterable[Object]) -> dict[str, Steadiness]:
    found = {}
    for pod in pods:
        condition = ready_condition(pod) or {}
        statuses = pod.get("status", {}).get("containerStatuses") or []
        since = condition.get("lastTransitionTime", "") if is_ready(pod) else "not ready"
        restarts = sum(each.get("restartCount", 0) for each in statuses)
        found[pod["metadata"]["name"]] = Steadiness(since, restarts)
    return found


def changed(before: dict[str, Steadiness], now: dict[str, Steadiness]) -> str:
    moved = [name for name in sorted(before) if now.get(name) != before[name]]
    return f"readiness or restarts changed: {', '.join(moved)}" if moved else ""


def addresses(pod: Object) -> list[str]:
    found = [each["ip"] for each in pod.get("status", {}).get("podIPs") or []]
    return found or [pod["status"]["podIP"]]


def url(address: str, port: int = 8080) -> str:
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


@dataclass(frozen=True, slots=True)
class Tally:
    """A caller's counts, or the difference of two."""

    answered: int = 0
    failed: int = 0
    echoed: int = 0
    broken: int = 0
    last: str = ""

    @classmethod
    def parse(cls, text: str) -> Tally:
        value = json.loads(text)
        return cls(**{each.name: value[each.name] for each in fields(cls)})

    def since(self, before: Tally) -> Tally:
        return Tally(
            self.answered - before.answered,
            self.failed - before.failed,
            self.echoed - before.echoed,
            self.broken - before.broken,
            self.last if self.last != before.last else "",
        )

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.answered + other.answered,
            self.failed + other.failed,
            self.echoed + other.echoed,
            self.broken + other.broken,
            self.last or other.last,
        )

    def __str__(self) -> str:
        text = (
            f"{self.answered} requests answered, {self.failed} failed; "
            f"{self.broken} open connections broken"
        )
        return f"{text} (last: {self.last})" if self.last else text


def uncaptured(statuses: dict[str, Object], wanted: dict[str, set[str]]) -> str:
    """Pods (by node) that the node's agent does not have captured."""
    missing = []
    for node, pods in sorted(wanted.items()):
        captured = {
            each["name"] for each in statuses.get(node, {}).get("pods", [])
            if each["state"] == "captured"
        }  # fmt: skip
        missing += [f"{node}/{name}" for name in sorted(pods - captured)]
    return f"not captured: {', '.join(missing)}" if missing else ""


def by_node(pods: Iterable[Object]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pod in pods:
        if not pod["spec"].get("hostNetwork") and "deletionTimestamp" not in pod["metadata"]:
            found.setdefault(pod["spec"]["nodeName"], set()).add(pod["metadata"]["name"])
    return found
