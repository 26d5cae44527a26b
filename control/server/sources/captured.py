"""Captured pods, as their nodes reported them; kept on disk over a restart.

Only a node's next report takes a pod out. Manifests that lose a pod for a moment must not: on its
node the pod runs on, captured, and a node reports only changes.
"""

from __future__ import annotations

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
    """Node → uids. Every report replaces the whole set of its node."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_node: dict[str, frozenset[str]] = _load(path)

    def in_force(self, homes: Mapping[str, str]) -> frozenset[str]:
        """Pods in `homes` (uid → node) that their own node reports as captured."""
        return frozenset(
            uid for uid, node in homes.items() if uid in self._by_node.get(node, frozenset())
        )

    def report(self, node: str, uids: Iterable[str]) -> bool:
        """Accept a report, on disk first; False when it changes nothing."""
        found = frozenset(uids)
        if len(found) > UIDS_PER_NODE_MAX or any(len(uid) > UID_CHARS_MAX for uid in found):
            raise BadReport("too many uids, or one that is too long")
        if node not in self._by_node and len(self._by_node) >= NODES_MAX:
            raise BadReport("too many nodes")
        if self._by_node.get(node, frozenset()) == found:
            return False
        self._store({**self._by_node, node: found})
        return True

    def _store(self, by_node: dict[str, frozenset[str]]) -> None:
        by_node = {node: uids for node, uids in by_node.items() if uids}
        value = {node: sorted(uids) for node, uids in sorted(by_node.items())}
        write_atomic(self._path, json.dumps(value, indent=1).encode() + b"\n", 0o600)
        self._by_node = by_node


def _load(path: Path) -> dict[str, frozenset[str]]:
    try:
        value = json.loads(path.read_bytes())
        return {str(node): frozenset(map(str, uids)) for node, uids in value.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as exc:
        raise ConfigError(f"{path}: not what a control plane wrote: {exc}") from exc
