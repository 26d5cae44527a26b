"""Settings that the compiler needs besides objects. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from control.model.workload import DEFAULT_CLUSTER, DEFAULT_TRUST_DOMAIN


@dataclass(frozen=True, slots=True)
class Settings:
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    cluster_id: str = DEFAULT_CLUSTER
    network: str = ""
    root_namespace: str = "istio-system"
    domain_suffix: str = "cluster.local"
    dry_run_policies: bool = False
    always_tunnel: bool = False  # no connection of the mesh takes the direct path
    release_all: bool = False  # the mesh is leaving: no pod is enrolled, no policy stands
    keeps_pods: bool = False  # with release_all: not yet, another replica may still have policies
