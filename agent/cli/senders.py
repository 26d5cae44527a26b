"""Names for addresses that have none of their own in a refusal: pods outside the mesh, and nodes,
whose addresses all pods of a host's network share."""

from __future__ import annotations

from agent.cli.mesh import MeshDump
from agent.cli.views import ztunnels


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
