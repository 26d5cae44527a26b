"""Status of a lab, read from its state file and from /proc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from agent.lab import process
from agent.lab.daemons import Daemons
from agent.lab.lab import Lab
from agent.lab.pods import LabPods
from agent.lab.process import Process
from control.kit.errors import ConfigError

MIB = 1024 * 1024


def status(lab: Lab) -> dict[str, Any]:
    """Nodes, processes and pods as JSON; `rss_mib` includes the children of a process."""
    state = lab.store.load()
    daemons = Daemons(lab.run_dir, state)
    return {
        "lab": state.lab,
        "folder": state.folder,
        "nodes": [
            {"name": node.name, "netns": node.netns, "addresses": list(node.address.both)}
            for node in state.nodes
        ],
        "processes": [
            {"name": name, "node": name.partition("-")[2], **_process(item)}
            | {"log": str(daemons.log(name))}
            for name, item in state.processes.items()
        ],
        "pods": [
            {
                "namespace": pod.spec.namespace,
                "name": pod.spec.name,
                "node": pod.spec.node,
                "address": pod.address.v4,
                "address_v6": pod.address.v6,
                "netns": pod.netns,
                "uid": pod.uid,
                **_process(pod.process),
            }
            for pod in state.pods.values()
        ],
    }


def log_path(lab: Lab, namespace: str, name: str) -> Path:
    """Log file of a process of the mesh or of a pod; ConfigError if there is none."""
    state = lab.store.load()
    if name in state.processes:
        return Daemons(lab.run_dir, state).log(name)
    try:
        pod = state.pod(namespace, name)
    except ConfigError as exc:
        raise ConfigError(f"{exc}; and the processes {', '.join(sorted(state.processes))}") from exc
    path = LabPods(lab.run_dir, state).log(pod)
    if not path.exists():
        raise ConfigError(f"pod {namespace}/{name} has not been started: there is no {path}")
    return path


def _process(item: Process | None) -> dict[str, Any]:
    if item is None:
        return {"state": "not started", "pid": None, "rss_mib": None}
    if not process.alive(item):
        return {"state": "dead", "pid": None, "rss_mib": None}  # the number may be another's now
    return {"state": "running", "pid": item.pid, "rss_mib": round(rss_bytes(item.pid) / MIB, 1)}


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for found in (parent, *parent.children(recursive=True)):
            try:
                total += found.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total
