"""Decides which changes of the mesh may void what the kernel was told about this node's pods.
No I/O.

A change that certainly does not is passed on without a word to the kernel: a push of thousands of
pods of other nodes must not send every local connection back to the tunnel.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from ztunnel.mesh.entries import Entry, Op

_Named = tuple[str, str]  # namespace and name

_POLICY_OPS = frozenset({Op.POLICY, Op.REMOVE_POLICY, Op.REJECTED_POLICY})
_ADDRESS_OPS = frozenset({Op.ADDRESS, Op.REMOVE_ADDRESS})
# Where addresses come on demand, a name that becomes known or unknown changes nothing by itself.
_HARMLESS_OPS = frozenset({Op.SNAPSHOT, Op.KNOWN, Op.UNKNOWN, Op.NEW_SERVICE})


def makes_stale(batch: Iterable[Entry], served: Container[tuple[str, str]]) -> bool:
    """True if a batch may void verdicts. `served`: namespace and name of each pod of this node.

    Any policy may; any service that is not new to all, which may bring a waypoint or take over an
    address; and a workload with the name of a pod of ours, whatever its kind and its cluster.
    """
    return any(_matters(entry, served) for entry in batch)


def _matters(entry: Entry, served: Container[tuple[str, str]]) -> bool:
    if entry.op in _POLICY_OPS:
        return True
    if entry.op in _HARMLESS_OPS:
        return False
    pod = _pod_of(entry.name)
    return pod is None or pod in served


def touched(batch: Iterable[Entry], served: Container[_Named]) -> frozenset[_Named] | None:
    """Pods of ours whose workload a batch may change; None: it may concern each of them. Services
    are nobody's."""
    found = set()
    for entry in batch:
        if entry.op in _HARMLESS_OPS:
            continue
        if entry.op not in _ADDRESS_OPS:
            return None
        pod = _pod_of(entry.name)
        if pod is not None and pod in served:
            found.add(pod)
    return frozenset(found)


def _pod_of(name: str) -> _Named | None:
    """Namespace and name in a workload's, "cluster//Pod/namespace/name"; None for a service's,
    "namespace/hostname"."""
    head, _, last = name.rpartition("/")
    return (head.rpartition("/")[2], last) if "/" in head else None
