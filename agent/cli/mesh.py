"""All pages of a mesh's admin sockets as one value, from live sockets or from a saved dump.

Every read command works on this value, so a dump shows the same as the live mesh.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.cli import shape
from agent.fetch import TIMEOUT_S, FetchError, get_json
from control.kit.clock import SystemClock
from control.kit.errors import ConfigError

DUMP_VERSION = 1
FETCHES_AT_ONCE = 8  # admin servers are small; more at once gains nothing
CONTROL_PAGES = ("status", "problems", "workloads", "services", "policies", "pods", "log")
_SOCKETS = {"agent": "agent.sock", "ztunnel": "ztunnel.sock"}

Json = dict[str, Any]


@dataclass(slots=True)
class MeshDump:
    """`nodes[name]` has the pages `agent` (status), `check`, `ztunnel` (config dump), `logging`."""

    taken_at: datetime
    nodes: dict[str, Json] = field(default_factory=dict)
    control: Json = field(default_factory=dict)
    labels: dict[str, Json] = field(default_factory=dict)  # "namespace" and "pod" → name → labels
    errors: list[str] = field(default_factory=list)

    def as_json(self) -> Json:
        return {
            "dumpVersion": DUMP_VERSION,
            "takenAt": self.taken_at.isoformat(),
            "nodes": self.nodes,
            "control": self.control,
            "labels": self.labels,
            "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class MeshSource:
    """The source of a command's data: a run folder, or a dump when `file` is given."""

    run_dir: Path
    file: Path | None = None
    node: str = ""
    timeout_s: float = TIMEOUT_S


def read(source: MeshSource, parts: Collection[str]) -> MeshDump:
    """Fetch `parts` (agent, check, ztunnel, control, logging); FetchError without any mesh."""
    if source.file is not None:
        return _only(load_dump(source.file), source.node)
    names = nodes(source.run_dir)
    admin = source.run_dir / "control" / "admin.sock"
    if not names and not admin.exists():
        raise FetchError(
            f"no */agent.sock and no control/admin.sock below {source.run_dir}: "
            "is the mesh running? (another folder: --run-dir)"
        )
    if source.node and source.node not in names:
        raise ConfigError(
            f"no node {source.node!r} below {source.run_dir}; there are: {', '.join(names)}"
        )
    wanted = [source.node] if source.node else names
    return _fetch(source, wanted, parts)


def nodes(run_dir: Path) -> list[str]:
    """Nodes with an agent's socket; PermissionError if one may be hidden from us."""
    for path in run_dir.glob("*/"):
        if not os.access(path, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return sorted(path.parent.name for path in run_dir.glob("*/agent.sock"))


def socket_of(run_dir: Path, component: str, node: str = "") -> Path:
    if component == "control":
        return run_dir / "control" / "admin.sock"
    return run_dir / node / _SOCKETS[component]


def _fetch(source: MeshSource, wanted: list[str], parts: Collection[str]) -> MeshDump:
    mesh = MeshDump(SystemClock().now(), nodes={name: {} for name in wanted})
    jobs: list[tuple[Json, str, Path, str]] = []
    for name in wanted:
        agent, ztunnel = (socket_of(source.run_dir, kind, name) for kind in ("agent", "ztunnel"))
        pages = {"agent": (agent, "/status"), "check": (agent, "/check")}
        pages["ztunnel"] = (ztunnel, "/config_dump")
        jobs += [(mesh.nodes[name], key, *pages[key]) for key in pages if key in parts]
        if "logging" in parts:
            logging: Json = mesh.nodes[name].setdefault("logging", {})
            jobs += [
                (logging, "agent", agent, "/logging"),
                (logging, "ztunnel", ztunnel, "/logging"),
            ]
    if "control" in parts:
        admin = socket_of(source.run_dir, "control")
        jobs += [(mesh.control, page, admin, f"/{page}") for page in CONTROL_PAGES]

    def run(job: tuple[Json, str, Path, str]) -> tuple[str, str]:
        target, key, path, page = job
        try:
            target[key] = get_json(path, page, source.timeout_s)
        except FetchError as exc:
            # A socket that is away is reported once, a page that fails each time.
            return (f"{path} {page}" if exc.status else str(path), str(exc))
        return ("", "")

    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        found = dict(reversed(list(pool.map(run, jobs))))
    mesh.errors = [error for error in reversed(found.values()) if error]
    if "control" in parts:
        mesh.labels = read_labels(mesh.control)
    return mesh


def manifests_folder(control: Json) -> Path | None:
    """The folder on this host from which the control plane reads objects; None: no folder."""
    for item in (control.get("status") or {}).get("sources") or []:
        path = Path(str(item))
        if path.is_dir():
            return path
    return None


def read_labels(control: Json) -> dict[str, Json]:
    """Labels of namespaces and pods, read from the manifests: the pages do not have them."""
    from agent.cli.manifests import read_documents

    folder = manifests_folder(control)
    if folder is None:
        return {}
    found: dict[str, Json] = {"namespace": {}, "pod": {}}
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        try:
            documents = read_documents(path)
        except ConfigError:
            continue  # the control plane reports it
        for document in documents:
            ref, labels = document.ref, document.value["metadata"].get("labels") or {}
            if ref.kind == "Namespace":
                found["namespace"][ref.name] = labels
            elif ref.kind == "Pod":
                found["pod"][f"{ref.namespace}/{ref.name}"] = labels
    return found


def load_dump(path: Path) -> MeshDump:
    """A file of `tulle dump`, or a ztunnel's config dump as one node; ConfigError otherwise."""
    try:
        value = json.loads(path.read_text())
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path}: not JSON: {exc}") from exc
    if isinstance(value, dict) and "workloadState" in value:
        shape.check_ztunnel(value, str(path))
        node = str(value.get("node") or "node")
        return MeshDump(SystemClock().now(), nodes={node: {"ztunnel": value}})
    if not isinstance(value, dict) or value.get("dumpVersion") != DUMP_VERSION:
        raise ConfigError(f"{path}: not a dump of this version (dumpVersion {DUMP_VERSION})")
    shape.check_dump(value, str(path))
    try:
        return MeshDump(
            taken_at=datetime.fromisoformat(value["takenAt"]),
            nodes=dict(value["nodes"]),
            control=dict(value["control"]),
            labels=dict(value["labels"]),
            errors=list(value["errors"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{path}: a damaged dump: {exc!r}") from exc


def _only(mesh: MeshDump, node: str) -> MeshDump:
    if not node:
        return mesh
    if node not in mesh.nodes:
        raise ConfigError(
            f"no node {node!r} in the dump; there are: {', '.join(sorted(mesh.nodes))}"
        )
    mesh.nodes = {node: mesh.nodes[node]}
    return mesh
