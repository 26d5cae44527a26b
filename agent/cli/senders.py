"""Names for addresses that have none of their own in a refusal: pods outside the mesh, and nodes,
whose addresses all pods of a host's network share."""

from __future__ import annotations

from collections import Counter

from agent.cli.mesh import MeshDump
from agent.cli.views.pages import Row, agent_pods, ztunnels

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
    for own, pod in agent_pods(mesh):
        for one in pod.get("refused") or []:
            node = own if one.get("host") else nodes.get(host_of(str(one.get("src") or "")))
            port = str(one.get("dst") or "").rpartition(":")[2]
            if node is None or one.get("reason") != _STRICT or _is_late(one, pod, port):
                continue
            found[f"{pod.get('namespace')}/{pod.get('name')}", node, port] += one["count"]
    return [
        f"{name} refused node {node} at port {port}, times since its capture: {count}"
        for (name, node, port), count in sorted(found.items())
    ]


def _is_late(one: Row, pod: Row, port: str) -> bool:
    """True at a port that the node's own kubelet probes: there the last segment of a probe that
    has succeeded may find its socket gone, and the kernel cannot tell it from a SYN."""
    return bool(one.get("host")) and port in map(str, pod.get("probe_ports") or [])
