"""Pods → workloads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from control.model.workload import (
    NetworkMode,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadType,
)
from control.server.compile.endpoints import Endpoints, PodServices
from control.server.compile.holdings import Holdings
from control.server.compile.host_ports import HostPortService, host_port_service
from control.server.compile.localities import Localities, first_label
from control.server.compile.pods import is_captured
from control.server.compile.residents import Resident
from control.server.compile.selectors import Selectors
from control.server.compile.services import pod_ports
from control.server.compile.settings import Settings
from control.server.sources import objects
from control.server.sources.objects import Key

_CANONICAL_NAME = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_CANONICAL_REVISION = (
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
)
# A CronJob names its Jobs `<name>-<minutes since 1970>`.
_CRON_JOB = re.compile(r"(.+)-[0-9]{8,10}")
_TYPES = {
    "Deployment": WorkloadType.DEPLOYMENT,
    "Job": WorkloadType.JOB,
    "CronJob": WorkloadType.CRONJOB,
}


@dataclass(frozen=True, slots=True)
class Compiler:
    """Indexes for turning pods into workloads. They are others' and change."""

    settings: Settings
    holdings: Holdings
    localities: Localities
    endpoints: Endpoints  # from slices, which win over selectors
    selecting: Selectors[objects.ServiceObject]  # the services without slices
    names: Mapping[Key, str]  # services on the wire

    def workload(self, resident: Resident, policies: tuple[str, ...]) -> Workload:
        """One that has lost an address to another claim does not have it here either."""
        pod = resident.pod
        meta = pod.meta
        kind, name = _owner(pod)
        return Workload(
            uid=workload_uid(meta.key, self.settings),
            name=meta.name,
            namespace=meta.namespace,
            addresses=tuple(each for each in pod.addresses if self.holdings.has(meta.key, each)),
            network=self.settings.network,
            tunnel_protocol=tunnel_protocol(pod, resident.is_captured),
            trust_domain=self.settings.trust_domain,
            service_account=pod.service_account,
            node=pod.node,
            canonical_name=first_label(meta.labels, _CANONICAL_NAME) or name,
            canonical_revision=first_label(meta.labels, _CANONICAL_REVISION) or "latest",
            workload_type=_TYPES.get(kind, WorkloadType.POD),
            workload_name=name,
            authorization_policies=policies,
            status=WorkloadStatus.HEALTHY if pod.ready else WorkloadStatus.UNHEALTHY,
            cluster_id=self.settings.cluster_id,
            services=MappingProxyType(self._services(resident)),
            locality=self.localities.of(pod.node),
            network_mode=(NetworkMode.HOST_NETWORK if pod.host_network else NetworkMode.STANDARD),
            last_resort=pod.last_resort,
        )

    def _services(self, resident: Resident) -> PodServices:
        pod = resident.pod
        if not pod.addresses:
            return {}  # nobody could connect to it
        found = self.endpoints.of(pod, self.holdings)
        for key, service in self.selecting.of(pod.meta.namespace, pod.meta.labels):
            found[self.names[key]] = pod_ports(service, pod)
        of_host = self.host_ports(resident)
        if of_host is not None:
            found[of_host.service.key] = of_host.ports
        return found

    def host_ports(self, resident: Resident) -> HostPortService | None:
        """The service of an enrolled pod's host ports."""
        pod = resident.pod
        if not pod.host_ports or not pod.addresses or not resident.is_enrolled:
            return None
        return host_port_service(pod, self.settings, self.holdings)


def has_workload(resident: Resident) -> bool:
    """True for a pod that can be reached, and for one that starts in the mesh: its ztunnel has to
    know who it is before the kubelet says where, whichever replica hears its agent."""
    pod = resident.pod
    if pod.is_terminal or pod.addresses:
        return not pod.is_terminal
    return bool(pod.node) and not pod.host_network and resident.is_enrolled


def workload_uid(key: Key, settings: Settings) -> str:
    return f"{settings.cluster_id}//Pod/{key.namespace}/{key.name}"


def tunnel_protocol(pod: objects.PodObject, reported: bool) -> TunnelProtocol:
    """HBONE for a captured pod. `reported`: its node says that the capture is in force."""
    return TunnelProtocol.HBONE if is_captured(pod, reported) else TunnelProtocol.NONE


def _owner(pod: objects.PodObject) -> tuple[str, str]:
    """Kind and name of the object that a person created: a Deployment, not its ReplicaSet."""
    owner = pod.owner
    if owner is None:
        return "Pod", pod.meta.name
    if owner.kind == "ReplicaSet":
        suffix = "-" + pod.meta.labels.get("pod-template-hash", "")
        if len(suffix) > 1 and owner.name.endswith(suffix) and owner.name != suffix:
            return "Deployment", owner.name.removesuffix(suffix)
    elif owner.kind == "Job" and (found := _CRON_JOB.fullmatch(owner.name)):
        return "CronJob", found[1]
    return owner.kind, owner.name
