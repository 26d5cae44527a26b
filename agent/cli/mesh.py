"""All pages of a mesh's admin sockets as one value, from live sockets or from a saved dump.

Every read command works on this value, so a dump shows the same as the live mesh.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.cli import processes, shape
from agent.cli.cluster.choice import ClusterChoice
from agent.cli.processes import MeshProcess
from agent.fetch import TIMEOUT_S, FetchError
from control.kit.choices import absent
from control.kit.clock import SystemClock
from control.kit.errors import ConfigError

DUMP_VERSION = 1
CONTROL_PAGES = (
    "status",
    "problems",
    "notes",
    "workloads",
    "services",
    "routes",
    "waypoints",
    "policies",
    "pods",
    "log",
)
# The pages that each part of a dump is made of, by the process that has them.
_PAGES = {
    "agent": {"agent": "/status", "check": "/check", "logging": "/logging"},
    "ztunnel": {"ztunnel": "/config_dump", "logging": "/logging"},
}

Json = dict[str, Any]


@dataclass(slots=True)
class MeshDump:
    """`nodes[name]` has the pages `agent` (status), `check`, `ztunnel` (config dump), `logging`."""

    taken_at: datetime
    nodes: dict[str, Json] = field(default_factory=dict)
    control: Json = field(default_factory=dict)
    labels: dict[str, Json] = field(default_factory=dict)  # "namespace" and "pod" → name → labels
    errors: list[str] = field(default_factory=list)
    # Process → reason for which a page of it is missing: `agent-n1`, `ztunnel-n1`, `control`.
    away: dict[str, str] = field(default_factory=dict)
    # Nodes whose ztunnel is of another make, and has no page on this host.
    foreign: list[str] = field(default_factory=list)

    def as_json(self) -> Json:
        return {
            "dumpVersion": DUMP_VERSION,
            "takenAt": self.taken_at.isoformat(),
            "nodes": self.nodes,
            "control": self.control,
            "labels": self.labels,
            "errors": self.errors,
            "away": self.away,
        }

    def missing(self, parts: Collection[str]) -> list[str]:
        """Processes that these parts come from and that did not give them."""
        needed = {kind for kind, pages in _PAGES.items() if any(part in pages for part in parts)}
        needed |= {"control"} & set(parts)
        return [name for name in sorted(self.away) if name.partition("-")[0] in needed]


@dataclass(frozen=True, slots=True)
class MeshSource:
    """The source of a command's data: a run folder, a dump when `file` is given, or a cluster."""

    run_dir: Path
    file: Path | None = None
    node: str = ""
    timeout_s: float = TIMEOUT_S
    cluster: ClusterChoice | None = None


def read(source: MeshSource, parts: Collection[str]) -> MeshDump:
    """Fetch `parts` (agent, check, ztunnel, control, logging); FetchError without any mesh."""
    if source.file is not None:
        return _only(load_dump(source.file), source.node)
    if source.cluster is not None:
        return _of_cluster(source, source.cluster, parts)
    names, control = known(source.run_dir)
    if source.node and source.node not in names:
        raise ConfigError(absent("node", source.node, names) + f" (below {source.run_dir})")
    wanted = [source.node] if source.node else names
    return _fetch(source, wanted, control if "control" in parts else None, parts)


def known(run_dir: Path) -> tuple[list[str], MeshProcess | None]:
    """Nodes and the control plane of a run folder; FetchError: it has neither."""
    names, control = processes.nodes(run_dir), processes.control(run_dir)
    if not names and control is None:
        raise FetchError(
            f"no node and no control plane below {run_dir}: "
            "is the mesh running? (another folder: --run-dir)"
        )
    return names, control


def _of_cluster(source: MeshSource, cluster: ClusterChoice, parts: Collection[str]) -> MeshDump:
    from agent.cli.cluster import pages, session  # half a second that a host does not need

    found = session.ask(
        cluster, lambda client: pages.read(client, parts, source.node, source.timeout_s)
    )
    return MeshDump(SystemClock().now(), **msgspec.structs.asdict(found))


def _fetch(
    source: MeshSource, wanted: list[str], control: MeshProcess | None, parts: Collection[str]
) -> MeshDump:
    mesh = MeshDump(SystemClock().now(), nodes={name: {} for name in wanted})
    asked: dict[MeshProcess, dict[str, str]] = {}
    for node in wanted:
        for kind, pages in _PAGES.items():
            chosen = {part: page for part, page in pages.items() if part in parts}
            if chosen:
                asked[processes.of_node(source.run_dir, kind, node)] = chosen
    if control is not None:
        asked[control] = {page: f"/{page}" for page in CONTROL_PAGES}
    answers = processes.ask(asked, source.timeout_s)
    for process, heard in answers.items():
        _place(mesh, process, heard.pages)
    silent = {each.node for each, heard in answers.items() if heard.error and _is_ztunnel(each)}
    foreign = _foreign(source, mesh, silent, asked)
    mesh.foreign = sorted(foreign)
    for process, heard in answers.items():
        if heard.error and not (_is_ztunnel(process) and process.node in foreign):
            mesh.errors.append(f"{process.name}: {heard.error}")
            mesh.away[process.name] = heard.error
    if control is not None:
        mesh.labels = read_labels(mesh.control)
    return mesh


def _is_ztunnel(process: MeshProcess) -> bool:
    return process.kind == "ztunnel"


def _foreign(
    source: MeshSource, mesh: MeshDump, nodes: Collection[str], asked: Collection[MeshProcess]
) -> set[str]:
    """Those of the nodes that have a ztunnel of another make, by their agents' word: it has no
    page, so none is missing."""
    pages = {node: mesh.nodes[node].get("agent") for node in nodes}
    agents = [processes.of_node(source.run_dir, "agent", node) for node in nodes]
    unasked = {each: {"agent": "/status"} for each in agents if each not in asked}
    for process, heard in processes.ask(unasked, source.timeout_s).items():
        pages[process.node] = heard.pages.get("agent")
    return {node for node, page in pages.items() if is_foreign(page)}


def is_foreign(agent: Json | None) -> bool:
    """True when the node is served by ztunnels, and none of them is Tulle's."""
    found = (agent or {}).get("ztunnels") or []
    return bool(found) and not any(each.get("ours", True) for each in found)


def _place(mesh: MeshDump, process: MeshProcess, pages: Json) -> None:
    if process.kind == "control":
        mesh.control.update(pages)
        return
    found = mesh.nodes[process.node]
    for part, value in pages.items():
        if part == "logging":
            found.setdefault("logging", {})[process.kind] = value
        else:
            found[part] = value


def manifests_folder(control: Json) -> Path | None:
    """The folder on this host from which the control plane reads objects; None: no folder."""
    for item in (control.get("status") or {}).get("sources") or []:
        path = Path(str(item))
        if path.is_dir():
            return path
    return None


def read_labels(control: Json) -> dict[str, Json]:
    """Labels of namespaces and pods, read from the manifests: the pages do not have them."""
    from agent.cli import manifests

    folder = manifests_folder(control)
    if folder is None:
        return {}
    found: dict[str, Json] = {"namespace": {}, "pod": {}}
    for path in manifests.files(folder):
        try:
            documents, _ = manifests.read_apart(manifests.read_text(path), str(path))
        except ConfigError:
            continue  # the control plane reports it
        for value in (each for one in documents for each in manifests.objects(one.value)):
            ref, labels = manifests.ref_of(value), value["metadata"].get("labels")
            labels = labels if isinstance(labels, dict) else {}
            if ref.kind == "Namespace":
                found["namespace"].setdefault(ref.name, labels)
            elif ref.kind == "Pod":
                found["pod"].setdefault(f"{ref.namespace}/{ref.name}", labels)
    return found


def name_of_file(path: Path) -> str:
    """The path in a message; `-` says little in front of a line number."""
    return "standard input" if str(path) == "-" else str(path)


def load_dump(path: Path) -> MeshDump:
    """A file of `tulle dump`, or a ztunnel's config dump as one node; ConfigError otherwise."""
    where = name_of_file(path)
    try:
        value = json.loads(sys.stdin.read() if str(path) == "-" else path.read_text())
    except OSError as exc:
        raise ConfigError(f"{where}: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{where}: not JSON: {exc}") from exc
    if isinstance(value, dict) and "workloadState" in value:
        shape.check_ztunnel(value, where)
        node = str(value.get("node") or "node")
        return MeshDump(SystemClock().now(), nodes={node: {"ztunnel": value}})
    if not isinstance(value, dict) or value.get("dumpVersion") != DUMP_VERSION:
        raise ConfigError(f"{where}: not a dump of this version (dumpVersion {DUMP_VERSION})")
    shape.check_dump(value, where)
    try:
        return MeshDump(
            taken_at=datetime.fromisoformat(value["takenAt"]),
            nodes=dict(value["nodes"]),
            control=dict(value["control"]),
            labels=dict(value["labels"]),
            errors=list(value["errors"]),
            away=dict(value.get("away") or {}),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{where}: a damaged dump: {exc!r}") from exc


def _only(mesh: MeshDump, node: str) -> MeshDump:
    if not node:
        return mesh
    if node not in mesh.nodes:
        raise ConfigError(absent("node", node, mesh.nodes) + " (in the dump)")
    mesh.nodes = {node: mesh.nodes[node]}
    asked = {f"agent-{node}", f"ztunnel-{node}", "control"}
    mesh.away = {name: why for name, why in mesh.away.items() if name in asked}
    return mesh
