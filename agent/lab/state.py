"""Record on disk of all that a lab made, so that any later command can use and remove it.

Each thing is recorded before it is made, so that a crash in between leaves nothing unknown.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from agent.lab import plan
from agent.lab.process import Process
from agent.lab.spec import PodSpec, Ready
from control.kit.choices import absent
from control.kit.errors import ConfigError
from control.kit.files import write_atomic

STATE_FILE = "lab.json"
LOCK_TIMEOUT_S = 60.0  # no other command should hold it for longer


@dataclass(slots=True)
class PodRecord:
    spec: PodSpec
    uid: str
    netns: str
    link: str
    address: plan.AddressPair
    process: Process | None = None


@dataclass(slots=True)
class LabState:
    lab: str
    folder: str
    unmeshed: bool
    workers: int
    cgroup: str
    nodes: list[plan.NodePlan] = field(default_factory=list)
    pods: dict[str, PodRecord] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    addresses: str = "all"  # as the ztunnels' flag
    links_made: int = 0  # names of links are never used twice

    def node(self, name: str) -> plan.NodePlan:
        for node in self.nodes:
            if node.name == name:
                return node
        raise ConfigError(absent("node", name, (item.name for item in self.nodes)))

    def pod(self, namespace: str, name: str) -> PodRecord:
        found = self.pods.get(f"{namespace}/{name}")
        if found is not None:
            return found
        elsewhere = [key for key in self.pods if key.endswith(f"/{name}")]
        raise ConfigError(absent("pod", f"{namespace}/{name}", elsewhere or self.pods))

    def namespaces(self) -> list[str]:
        names = [pod.netns for pod in self.pods.values()]
        names += [node.netns for node in self.nodes]
        return [*names, plan.control_netns(self.lab), plan.router_netns(self.lab)]


class Store:
    """State file of a lab. Threads of a process share it; `exclusive` keeps other commands out."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._path = run_dir / STATE_FILE
        self._lock = threading.Lock()

    def exists(self) -> bool:
        return self._path.exists()

    def load(self) -> LabState:
        try:
            return decode(json.loads(self._path.read_text()))
        except FileNotFoundError:
            raise ConfigError(
                f"no lab is up ({self._path} does not exist); start one: tulle lab up DIR"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ConfigError(
                f"{self._path}: damaged, or of another version of the lab ({exc!r})"
            ) from exc

    def save(self, state: LabState) -> None:
        with self._lock:
            write_atomic(self._path, json.dumps(asdict(state), indent=1).encode(), 0o600)

    def forget(self) -> None:
        """Remove the file, and those of writes that were cut short."""
        for path in self.run_dir.glob(f".{STATE_FILE}.*"):
            path.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other commands from changing the lab; ConfigError when one does not finish."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.run_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            deadline = time.monotonic() + LOCK_TIMEOUT_S
            while True:
                try:
                    flock(handle, LOCK_EX | LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise ConfigError("another `tulle lab` command is still running") from None
                    time.sleep(0.05)
            yield
        finally:
            remove_if_empty(self.run_dir)
            os.close(handle)


def remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # absent, or not empty


def decode(value: dict[str, Any]) -> LabState:
    """State from its JSON, the inverse of `asdict`."""
    pods = {key: _pod(item) for key, item in value["pods"].items()}
    nodes = [
        plan.NodePlan(
            **{
                **item,
                "address": plan.AddressPair(**item["address"]),
                "router": plan.AddressPair(**item["router"]),
                "ztunnel": tuple(item.get("ztunnel", ())),
            }
        )
        for item in value["nodes"]
    ]
    processes = {key: Process(**item) for key, item in value["processes"].items()}
    return LabState(**{**value, "pods": pods, "nodes": nodes, "processes": processes})


def _pod(value: dict[str, Any]) -> PodRecord:
    spec = dict(value["spec"])
    spec["ready"] = Ready(**spec["ready"])
    for key in ("command", "tmpfs"):
        spec[key] = tuple(spec[key])
    process = value["process"]
    return PodRecord(
        **{
            **value,
            "spec": PodSpec(**spec),
            "address": plan.AddressPair(**value["address"]),
            "process": Process(**process) if process else None,
        }
    )
