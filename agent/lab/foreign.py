"""A ztunnel of another make on a node of the lab: the environment it is started with. Pure.

The variables are those of Istio's ztunnel; each has its meaning there, and most have it in ours.
"""

from __future__ import annotations

from pathlib import Path

from agent.lab import plan

TRUST_DOMAIN = "cluster.local"
CLUSTER = "Kubernetes"
NAMESPACE = "istio-system"


def environment(
    node: plan.NodePlan, *, control: str, control_name: str, root: Path, folder: Path, workers: int
) -> dict[str, str]:
    """`control` is host:port; `folder` the node's own, with its token and the agent's socket."""
    trust = {
        f"{kind}_{name}": value
        for kind in ("XDS", "CA")
        for name, value in (("ADDRESS", f"https://{control}"), ("ROOT_CA", str(root)))
    }
    return {
        **trust,
        "ALT_XDS_HOSTNAME": control_name,
        "ALT_CA_HOSTNAME": control_name,
        "AUTH_TOKEN": str(folder / "token"),
        "INPOD_UDS": str(folder / "zds.sock"),
        "PROXY_MODE": "shared",
        "NODE_NAME": node.name,
        "CLUSTER_ID": CLUSTER,
        "NETWORK": "",
        "TRUST_DOMAIN": TRUST_DOMAIN,
        "POD_NAME": f"ztunnel-{node.name}",
        "POD_NAMESPACE": NAMESPACE,
        "SERVICE_ACCOUNT": "ztunnel",
        "INSTANCE_IP": node.address.v4,
        # The agent steers no DNS.
        "ISTIO_META_DNS_CAPTURE": "false",
        "ZTUNNEL_WORKER_THREADS": str(workers),
    }
