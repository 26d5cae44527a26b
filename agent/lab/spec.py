"""Parser of `lab.yaml`: the nodes, the node of each pod, and the command it runs. Pure.

name: shop                  # short: it becomes part of namespace names
nodes: {n1: {zone: eu-1, region: eu}, n2: {}}
                            # a node's ztunnel: [/opt/ztunnel] is one of another make, by Istio's
                            # variables
pods:
  shop/ratings-v1:          # namespace/name of a Pod in the manifests
    node: n1
    command: ["python3", "apps/ratings.py"]
    workdir: .              # relative to the folder of lab.yaml
    env: {PORT: "9080"}
    user: postgres          # runs as root when absent
    ready: {tcp: 9080}      # or {log: "some text"}; ready at once when absent
    ready_timeout_s: 30
    files: {/etc/app.conf: conf/app.conf}   # bind-mounted in the pod, over files that exist
    tmpfs: [/var/lib/app]   # fresh and empty in the pod, over folders that exist
  shop/waypoint:            # a waypoint of the Gateway shop/waypoint, in place of a command
    node: n2
    waypoint: waypoint
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from agent.cli.manifests import read_text
from control.kit.errors import ConfigError

NAME_CHARS_MAX = 12  # the lab's and a node's name: both are parts of longer kernel names
NODES_MAX = 50  # one /24 per node is taken from 10.71.0.0 … 10.120.0.0
READY_TIMEOUT_S = 30.0  # for a database on a loaded machine; more would hide a hang

# Folders beside the nodes' own in the run folder, and namespaces beside theirs.
_RESERVED = frozenset({"control", "hosts", "logs", "manifests", "router", "waypoints"})
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_POD_KEY = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)/([a-z0-9]([-.a-z0-9]*[a-z0-9])?)")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    name: str
    zone: str = ""
    region: str = ""
    ztunnel: tuple[str, ...] = ()  # command of a foreign one; empty: ours


@dataclass(frozen=True, slots=True)
class Ready:
    """Condition for a pod's readiness: a listening TCP port, a text in its log, or none."""

    tcp: int = 0
    log: str = ""


@dataclass(frozen=True, slots=True)
class PodSpec:
    namespace: str
    name: str
    node: str
    command: tuple[str, ...]
    workdir: str
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    ready: Ready = field(default_factory=Ready)
    ready_timeout_s: float = READY_TIMEOUT_S
    files: Mapping[str, str] = field(default_factory=dict)
    tmpfs: tuple[str, ...] = ()
    waypoint: str = ""  # name of its Gateway, which is in its namespace; then there is no command

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class LabSpec:
    name: str
    nodes: tuple[NodeSpec, ...]
    pods: tuple[PodSpec, ...]

    def spread(self, count: int) -> LabSpec:
        """The same pods, dealt in turn to `count` nodes n1 … instead of the named ones."""
        if not 1 <= count <= NODES_MAX:
            raise ConfigError(f"--nodes {count}: from 1 to {NODES_MAX}")
        nodes = tuple(NodeSpec(f"n{number}") for number in range(1, count + 1))
        pods = tuple(
            replace(pod, node=nodes[index % count].name) for index, pod in enumerate(self.pods)
        )
        return LabSpec(self.name, nodes, pods)


def load(path: Path) -> LabSpec:
    """Read a file; every ConfigError names the file, the line and the object."""
    return parse(read_text(path), str(path))


def parse(text: str, where: str) -> LabSpec:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{where}:{line}: {exc.problem}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{where}: {exc}") from exc
    return _Reader(where, root, str(Path(where).parent)).lab(value)


class _Reader:
    def __init__(self, where: str, root: yaml.Node | None, folder: str) -> None:
        self._where = where
        self._root = root
        self._folder = folder

    def lab(self, value: Any) -> LabSpec:
        top = self._mapping(value, (), {"name", "nodes", "pods"})
        name = self._name(top.get("name"), ("name",))
        nodes = self._nodes(top.get("nodes"))
        known = {node.name for node in nodes}
        pods = self._mapping(top.get("pods") or {}, ("pods",), None)
        found = tuple(self._pod(str(key), body, known) for key, body in pods.items())
        return LabSpec(name, nodes, found)

    def _nodes(self, value: Any) -> tuple[NodeSpec, ...]:
        nodes = []
        for name, body in self._mapping(value, ("nodes",), None).items():
            path = ("nodes", str(name))
            if name in _RESERVED:
                raise self._error(path, "the lab needs this name itself")
            fields = self._mapping(body or {}, path, {"zone", "region", "ztunnel"})
            zone, region = (self._text(fields, key, path) for key in ("zone", "region"))
            ztunnel = self._program(fields.get("ztunnel"), (*path, "ztunnel"))
            nodes.append(NodeSpec(self._name(name, path), zone, region, ztunnel))
        if not 1 <= len(nodes) <= NODES_MAX:
            raise self._error(("nodes",), f"needs from 1 to {NODES_MAX} nodes")
        return tuple(nodes)

    def _program(self, value: Any, path: tuple[str, ...]) -> tuple[str, ...]:
        """A command whose program may lie beside lab.yaml."""
        if value is None:
            return ()
        program, *words = self._texts(value, path, 1)
        if "/" in program:
            program = str(Path(self._folder, program).resolve())
        return (program, *words)

    def _pod(self, key: str, body: Any, nodes: set[str]) -> PodSpec:
        path = ("pods", key)
        match = _POD_KEY.fullmatch(key)
        if match is None:
            raise self._error(path, "the key of a pod is namespace/name")
        known = {"node", "command", "workdir", "env", "user", "ready", "ready_timeout_s", "files"}
        fields = self._mapping(body, path, known | {"tmpfs", "waypoint"})
        waypoint = self._text(fields, "waypoint", path)
        for other in ("command", "ready") if waypoint else ():
            if other in fields:
                raise self._error((*path, other), "a waypoint has its own")
        node = self._text(fields, "node", path)
        if node not in nodes:
            raise self._error((*path, "node"), f"no node {node!r}; there are {sorted(nodes)}")
        timeout_s = fields.get("ready_timeout_s", READY_TIMEOUT_S)
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= 600:
            raise self._error((*path, "ready_timeout_s"), "seconds, above 0 and up to 600")
        workdir = self._text(fields, "workdir", path) or "."
        return PodSpec(
            namespace=match[1],
            name=match[3],
            node=node,
            command=() if waypoint else self._texts(fields.get("command"), (*path, "command"), 1),
            workdir=str(Path(self._folder, workdir).resolve()),
            env=self._text_map(fields.get("env"), (*path, "env")),
            user=self._text(fields, "user", path),
            ready=self._ready(fields.get("ready"), (*path, "ready")),
            ready_timeout_s=float(timeout_s),
            files=self._files(fields.get("files"), (*path, "files")),
            tmpfs=self._folders(fields.get("tmpfs"), (*path, "tmpfs")),
            waypoint=waypoint,
        )

    def _ready(self, value: Any, path: tuple[str, ...]) -> Ready:
        if value is None:
            return Ready()
        fields = self._mapping(value, path, {"tcp", "log"})
        if len(fields) != 1:
            raise self._error(path, "give one of tcp and log")
        if "log" in fields:
            return Ready(log=self._text(fields, "log", path))
        port = fields["tcp"]
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise self._error((*path, "tcp"), "not a port")
        return Ready(tcp=port)

    def _files(self, value: Any, path: tuple[str, ...]) -> dict[str, str]:
        found = {}
        for inside, outside in self._text_map(value, path).items():
            if not inside.startswith("/"):
                raise self._error((*path, inside), "the path in the pod must be absolute")
            found[inside] = str(Path(self._folder, outside).resolve())
        return found

    def _folders(self, value: Any, path: tuple[str, ...]) -> tuple[str, ...]:
        folders = () if value is None else self._texts(value, path, 0)
        for folder in folders:
            if not folder.startswith("/") or folder == "/":
                raise self._error(path, f"{folder!r} is not an absolute folder")
        return folders

    def _mapping(self, value: Any, path: tuple[str, ...], known: set[str] | None) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error(path, "must be a mapping")
        for key in value:
            if known is not None and key not in known:
                raise self._error((*path, str(key)), f"unknown field; known: {sorted(known)}")
        return {str(key): item for key, item in value.items()}

    def _text(self, fields: dict[str, Any], key: str, path: tuple[str, ...]) -> str:
        value = fields.get(key, "")
        if not isinstance(value, str):
            raise self._error((*path, key), "must be a text")
        return value

    def _texts(self, value: Any, path: tuple[str, ...], at_least: int) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) < at_least:
            raise self._error(path, "must be a list of words")
        for item in value:
            if not isinstance(item, str | int | float) or isinstance(item, bool):
                raise self._error(path, f"{item!r} is not a word")
        return tuple(str(item) for item in value)

    def _text_map(self, value: Any, path: tuple[str, ...]) -> dict[str, str]:
        fields = self._mapping(value or {}, path, None)
        for key, item in fields.items():
            if not isinstance(item, str | int | float) or isinstance(item, bool):
                raise self._error((*path, key), "must be a text; put it in quotes")
        return {key: str(item) for key, item in fields.items()}

    def _name(self, value: Any, path: tuple[str, ...]) -> str:
        if not isinstance(value, str) or not _NAME.fullmatch(value) or len(value) > NAME_CHARS_MAX:
            raise self._error(path, f"a name has 1 to {NAME_CHARS_MAX} of a-z, 0-9 and -")
        return value

    def _error(self, path: tuple[str, ...], problem: str) -> ConfigError:
        line, node = 1, self._root
        for part in path:
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            for key, child in pairs:
                if key.value == part:
                    line, node = key.start_mark.line + 1, child
                    break
            else:
                break
        dotted = ".".join(path) or "the file"
        return ConfigError(f"{self._where}:{line}: {dotted}: {problem}")
