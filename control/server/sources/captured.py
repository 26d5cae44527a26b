"""Captured pods, as their nodes reported them; kept on disk over a restart.

Only a node's next report takes a pod out. Manifests that lose a pod for a moment must not: on its
node the pod runs on, captured, and a node reports only changes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from control.kit.errors import ConfigError
from control.kit.files import write_atomic
from control.kit.log import event
from control.model.address import Address, format_address, parse_address
from control.model.intent import Intent
from control.server.sources.doubt import NODES_MAX, Doubt, Seal
from control.server.sources.objects import PodObject

log = logging.getLogger("enrolment")

UIDS_PER_NODE_MAX = 4096  # Kubernetes supports some hundred pods a node
UID_CHARS_MAX = 253
ADDRESSES_MAX = 2  # one of each family
# Disk space that is held for reports, given up when there is no other: files of a hundred nodes.
RESERVE_BYTES = 1 << 20

Reported = Mapping[str, tuple[Address, ...]]  # uid → addresses at which it is captured


class BadReport(ConfigError):
    reason = "bad_report"


class Marks(Protocol):
    """Marks of captured pods on their objects, where others see them."""

    def reported(self, node: str, uids: Iterable[str]) -> frozenset[str]:
        """A node's whole report; the pods that it has released and that are still marked."""

    def seen(self, uid: str, pod: PodObject) -> PodObject:
        """The pod, without a mark that its node has taken back."""

    def gone(self, uid: str) -> None:
        """The pod is not there any more."""


class CapturedSet:
    """Node → pods. Every report replaces the whole set of its node. A file a node, so that a
    report costs what its own node has, whatever the others have. `marks` is set where objects can
    be marked."""

    marks: Marks | None = None

    def __init__(self, folder: Path, *, is_new: bool = False, is_shared: bool = False) -> None:
        """`is_new`: no node can have reported to a control plane with this state before.
        `is_shared`: nodes may have reported to another replica since."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._by_node, is_all = _load(folder)
        self._seal = Seal(folder / ".whole")
        if is_new:
            self._seal.put(True)
        # A seal that cannot be written is no reason to doubt what cannot be missing.
        is_whole = is_new or (is_all and self._seal.is_whole)
        self.doubt = Doubt(is_shared or not is_whole)
        self._reserve = folder / ".reserve"
        self._set_aside()

    def has(self, node: str, uid: str) -> bool:
        """True while this node reports this pod."""
        return uid in self._by_node.get(node, {})

    def is_captured(self, intent: Intent) -> bool:
        """True for a pod that its own node reports, and for an enrolled one of a node that may have
        captured it before the last start."""
        if self.has(intent.node, intent.uid):
            return True
        return intent.enrolled and self.doubt.about(intent.node)

    def weigh(self, marked: Iterable[str]) -> None:
        """A node that had an agent has a marked pod, in a cluster, or it has reported."""
        if self.doubt.is_on and self.marks is not None:
            self.doubt.only = frozenset((*marked, *self._by_node))

    def placed(self, uid: str, pod: PodObject) -> PodObject:
        """The pod; at the addresses that its own node reports, if its object has not all of them:
        it has none yet, or still those of a sandbox that was replaced."""
        if self.marks is not None:
            pod = self.marks.seen(uid, pod)
        if pod.host_network:
            return pod
        addresses = self._by_node.get(pod.node, {}).get(uid, ())
        if not addresses or set(addresses) <= set(pod.addresses):
            return pod
        return replace(
            pod, addresses=addresses, is_placed_by_node=True, stated_addresses=pod.addresses
        )

    def gone(self, uid: str) -> None:
        """A pod is not there any more. Its node's report stays: it may be back in a moment."""
        if self.marks is not None:
            self.marks.gone(uid)

    def changes(self, node: str, pods: Reported) -> frozenset[str]:
        """The uids that a report would change. Raises BadReport."""
        _check(pods)
        if node not in self._by_node and self.is_full:
            raise BadReport("too many nodes")
        known = self._by_node.get(node, {})
        absent = (None,)  # unlike any addresses
        return frozenset(
            uid
            for uid in known.keys() | pods.keys()
            if known.get(uid, absent) != pods.get(uid, absent)
        )

    def take(self, node: str, pods: Reported) -> frozenset[str]:
        """Take a report over, in memory; the uids that it changed."""
        changed = self.changes(node, pods)
        if pods:
            self._by_node[node] = dict(pods)
        else:
            self._by_node.pop(node, None)
        return changed if self.marks is None else changed | self.marks.reported(node, pods)

    def keep_only(self, nodes: Container[str]) -> None:
        """Forget the nodes that are gone, so that others have room."""
        for node in [each for each in self._by_node if each not in nodes]:
            del self._by_node[node]
            with contextlib.suppress(OSError):
                self._path(node).unlink(missing_ok=True)

    @property
    def is_full(self) -> bool:
        return len(self._by_node) >= NODES_MAX

    def drop(self, node: str, uids: frozenset[str]) -> None:
        """Take pods out that the node reported as released, to another control plane than this."""
        known = self._by_node.get(node, {})
        self._by_node[node] = {uid: each for uid, each in known.items() if uid not in uids}

    def save(self, node: str) -> None:
        """Write down what this node has; for a thread of its own. Raises OSError."""
        path = self._path(node)
        pods = self._by_node.get(node)
        if not pods:
            path.unlink(missing_ok=True)
            return
        texts = {uid: [format_address(each) for each in found] for uid, found in pods.items()}
        placed = {uid: found for uid, found in sorted(texts.items()) if found}
        value = {"node": node, "uids": sorted(pods), "addresses": placed}
        data = json.dumps(value, indent=1).encode() + b"\n"
        try:
            write_atomic(path, data, 0o600)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._reserve.unlink(missing_ok=True)
            write_atomic(path, data, 0o600)
        self._set_aside()

    def seal(self, is_whole: bool) -> None:
        """Note if the folder has all that was reported, as far as we can know: during a doubt it
        has not. For a thread of its own. Raises ConfigError."""
        self._seal.put(is_whole and not self.doubt.is_on)

    def _path(self, node: str) -> Path:
        return self._folder / hashlib.sha256(node.encode(errors="surrogateescape")).hexdigest()

    def _set_aside(self) -> None:
        """Hold disk space for the next reports, unless it is held already or there is none."""
        if self._reserve.exists():
            return
        try:
            handle = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(handle, 0, RESERVE_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                self._reserve.unlink()
        finally:
            os.close(handle)


def _check(pods: Reported) -> None:
    if len(pods) > UIDS_PER_NODE_MAX or any(len(uid) > UID_CHARS_MAX for uid in pods):
        raise BadReport("too many uids, or one that is too long")
    for found in pods.values():
        if len({len(each) for each in found}) < len(found):
            raise BadReport("a pod with two addresses of one family")


def _load(folder: Path) -> tuple[dict[str, Reported], bool]:
    """All that can be read, and True if that is everything."""
    found: dict[str, Reported] = {}
    is_all = True
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue  # half-written when the power went
        try:
            value = json.loads(path.read_bytes())
            texts = dict(value.get("addresses", {}))  # older ones have none
            found[str(value["node"])] = {
                uid: tuple(map(parse_address, texts.get(uid, ())))
                for uid in map(str, value["uids"])
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            is_all = False
            event(log, logging.ERROR, "captures.unreadable", file=path, error=exc)
    return found, is_all
