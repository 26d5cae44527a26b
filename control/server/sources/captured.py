"""Captured pods, as their nodes reported them; kept on disk over a restart.

Only a node's next report takes a pod out. Manifests that lose a pod for a moment must not: on its
node the pod runs on, captured, and a node reports only changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from control.kit.errors import ConfigError
from control.kit.files import write_atomic

UIDS_PER_NODE_MAX = 4096  # Kubernetes supports some hundred pods a node
UID_CHARS_MAX = 253
NODES_MAX = 16384


class BadReport(ConfigError):
    reason = "bad_report"


class CapturedSet:
    """Node → uids. Every report replaces the whole set of its node. A file a node, so that a
    report costs what its own node has, whatever the others have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._by_node = _load(folder)

    def has(self, node: str, uid: str) -> bool:
        """True while this node reports this pod."""
        return uid in self._by_node.get(node, frozenset())

    def in_force(self, homes: Mapping[str, str]) -> frozenset[str]:
        """Pods in `homes` (uid → node) that their own node reports as captured."""
        return frozenset(uid for uid, node in homes.items() if self.has(node, uid))

    def changes(self, node: str, uids: Iterable[str]) -> frozenset[str]:
        """The uids that a report would change. Raises BadReport."""
        found = _checked(uids)
        if node not in self._by_node and len(self._by_node) >= NODES_MAX:
            raise BadReport("too many nodes")
        return found ^ self._by_node.get(node, frozenset())

    def take(self, node: str, uids: Iterable[str]) -> frozenset[str]:
        """Take a report over, in memory; the uids that it changed."""
        changed = self.changes(node, uids)
        found = changed ^ self._by_node.get(node, frozenset())
        if found:
            self._by_node[node] = found
        else:
            self._by_node.pop(node, None)
        return changed

    def save(self, node: str) -> None:
        """Write down what this node has; for a thread of its own. Raises OSError."""
        path = self._folder / hashlib.sha256(node.encode(errors="surrogateescape")).hexdigest()
        uids = self._by_node.get(node)
        if not uids:
            path.unlink(missing_ok=True)
            return
        value = {"node": node, "uids": sorted(uids)}
        write_atomic(path, json.dumps(value, indent=1).encode() + b"\n", 0o600)


def _checked(uids: Iterable[str]) -> frozenset[str]:
    found = frozenset(uids)
    if len(found) > UIDS_PER_NODE_MAX or any(len(uid) > UID_CHARS_MAX for uid in found):
        raise BadReport("too many uids, or one that is too long")
    return found


def _load(folder: Path) -> dict[str, frozenset[str]]:
    found = {}
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue  # half-written when the power went
        try:
            value = json.loads(path.read_bytes())
            found[str(value["node"])] = frozenset(map(str, value["uids"]))
        except (ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f"{path}: not what a control plane wrote: {exc}") from exc
    return found
