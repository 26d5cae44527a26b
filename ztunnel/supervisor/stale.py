"""Which changes of the mesh may change what the kernel was told about pods of this node. No I/O.

What surely does not is let through without a word to the kernel: a push of thousands of pods of
other nodes must not send every local connection back to the tunnel.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from ztunnel.mesh.entries import Entry, Op

_POLICY_OPS = frozenset({Op.POLICY, Op.REMOVE_POLICY, Op.REJECTED_POLICY})


def makes_stale(batch: Iterable[Entry], served: Container[tuple[str, str]]) -> bool:
    """`served`: namespace and name of each pod of this node.

    Any policy; any service, which may bring a waypoint or take over an address; and a workload
    that has the name of a pod of ours, of whatever kind it is and in whatever cluster.
    """
    return any(_matters(entry, served) for entry in batch)


def _matters(entry: Entry, served: Container[tuple[str, str]]) -> bool:
    if entry.op in _POLICY_OPS:
        return True
    if entry.op is Op.SNAPSHOT:
        return False
    # Names: "namespace/hostname" of a service, "cluster//Pod/namespace/name" of a workload.
    head, _, name = entry.name.rpartition("/")
    if "/" not in head:
        return True
    return (head.rpartition("/")[2], name) in served
