"""Names for addresses that have none of their own in a refusal: pods outside the mesh, and nodes,
whose addresses all pods of a host's network share."""

from __future__ import annotations

from collections import Counter

from agent.cli.mesh import MeshDump
from agent.cli.views import agent_pods, ztunnels

HOST_NETWORK = "host network"  # the control plane's reason to leave a pod out
_STRICT = "inbound_strict"  # the kernel's: bpf.layout.Counter


def senders(mesh: MeshDump) -> dict[str, str]:
    """By address, as the ztunnels know them."""
    found: dict[str, str] = {}
    for _, page in ztunnels(mesh):
        for item in page.get("workloads") or []:
            name = f"{item.get('namespace')}/{item.get('name')}"
            if item.get("networkMode") == "HostNetwork":
                name = f"node {item.get('node')}"
            for address in item.get("workloadIps") or []:
                found.setdefault(str(address), name)
    return found


def host_of(endpoint: str) -> str:
    """The address of ADDRESS:PORT."""
    return endpoint.rpartition(":")[0].strip("[]")


def refused_of_nodes(mesh: MeshDump) -> list[str]:
    """A sentence for each captured pod that refused a node's own network for want of an identity.
    The control plane says whose address it is."""
    nodes = {
        str(address): str(pod.get("node"))
        for pod in mesh.control.get("pods") or []
        if pod.get("reason") == HOST_NETWORK
        for address in pod.get("addresses") or []
    }
    found: Counter[tuple[str, str, str]] = Counter()
    for _, pod in agent_pods(mesh):
        for one in pod.get("refused") or []:
            node = nodes.get(host_of(str(one.get("src") or "")))
            if node is not None and one.get("reason") == _STRICT:
                port = str(one.get("dst") or "").rpartition(":")[2]
                found[f"{pod.get('namespace')}/{pod.get('name')}", node, port] += one["count"]
    return [
        f"{name} refused node {node} at port {port}, times since its capture: {count}"
        for (name, node, port), count in sorted(found.items())
    ]
