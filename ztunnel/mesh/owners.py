"""Owner of an address, and the workload of a local pod, when several workloads fit. No I/O.

Our control plane gives an address to one workload; others may not. The rule here: a pod of this
node has its address before everyone else, before virtual addresses too; then pods come before
workloads that were written by hand, captured ones before plaintext, and last the latest heard of.
"""

from __future__ import annotations

from collections.abc import Iterable

from control.model.workload import NetworkMode, TunnelProtocol, Workload

_POD = ("", "Pod")  # group and kind


def is_pod_uid(uid: str) -> bool:
    """False for a uid that names another kind: `cluster/group/kind/namespace/name`, where pods
    have no group. A uid of no such form says nothing."""
    parts = uid.split("/", 3)
    return len(parts) < 4 or (parts[1], parts[2]) == _POD


def is_local_pod(workload: Workload, node: str) -> bool:
    return (
        workload.node == node != ""
        and workload.network_mode is NetworkMode.STANDARD
        and is_pod_uid(workload.uid)
    )


def owner(claimants: Iterable[Workload], node: str) -> Workload | None:
    """The owner of an address; `claimants` come with the latest first. None when several share it,
    as pods on the host's network do."""
    best: Workload | None = None
    best_rank = (False, False, False)
    shared: list[Workload] = []
    for each in claimants:
        if each.network_mode is NetworkMode.HOST_NETWORK:
            shared.append(each)
            continue
        hbone = each.tunnel_protocol is TunnelProtocol.HBONE
        rank = (is_local_pod(each, node), is_pod_uid(each.uid), hbone)
        if best is None or rank > best_rank:
            best, best_rank = each, rank
    if best is not None:
        return best
    return shared[0] if len(shared) == 1 else None


def local_pod(found: Iterable[Workload], node: str, cluster_id: str) -> Workload | None:
    """The workload that a pod's claim (ZDS) means, among those of its name and account: a pod, of
    this node and this cluster if there are several."""
    pods = [each for each in found if is_pod_uid(each.uid)]
    if not pods:
        return None
    return max(pods, key=lambda each: (each.node == node, each.cluster_id == cluster_id))
