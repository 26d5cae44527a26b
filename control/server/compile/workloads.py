"""Pods → workloads."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from control.model.address import Address
from control.model.workload import (
    Locality,
    NetworkMode,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadType,
)
from control.server.compile.endpoints import Endpoints, PodServices, SliceMemo, read_slices
from control.server.compile.holdings import Holdings
from control.server.compile.host_ports import HostPortService, host_port_service
from control.server.compile.pods import is_captured, pod_uid
from control.server.compile.services import is_in_mesh, pod_ports, service_key
from control.server.compile.settings import Settings
from control.server.sources import objects
from control.server.sources.objects import Objects

_CANONICAL_NAME = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_CANONICAL_REVISION = (
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
)
_REGION = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
_ZONE = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
_SUBZONE = ("topology.istio.io/subzone",)
# A CronJob names its Jobs `<name>-<minutes since 1970>`.
_CRON_JOB = re.compile(r"(.+)-[0-9]{8,10}")
_TYPES = {
    "Deployment": WorkloadType.DEPLOYMENT,
    "Job": WorkloadType.JOB,
    "CronJob": WorkloadType.CRONJOB,
}


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in selector.items())


@dataclass(frozen=True, slots=True)
class Compiler:
    """Indexes for turning pods into workloads."""

    settings: Settings
    captured: Container[str]
    holdings: Holdings
    localities: Mapping[str, Locality]
    # Services by namespace and one pair of their selector: a pod looks up its own labels instead
    # of trying every service.
    services_by_label: Mapping[tuple[str, str, str], list[tuple[str, objects.ServiceObject]]]
    endpoints: Endpoints  # from slices, which win over selectors
    enrolled: Container[str] = ()  # uids

    def workload(self, pod: objects.PodObject, policies: tuple[str, ...]) -> Workload:
        """One that has lost an address to another claim does not have it here either."""
        meta = pod.meta
        kind, name = _owner(pod)
        return Workload(
            uid=workload_uid(meta, self.settings),
            name=meta.name,
            namespace=meta.namespace,
            addresses=self._addresses(pod),
            network=self.settings.network,
            tunnel_protocol=tunnel_protocol(pod, pod_uid(meta) in self.captured),
            trust_domain=self.settings.trust_domain,
            service_account=pod.service_account,
            node=pod.node,
            canonical_name=_first(meta.labels, _CANONICAL_NAME) or name,
            canonical_revision=_first(meta.labels, _CANONICAL_REVISION) or "latest",
            workload_type=_TYPES.get(kind, WorkloadType.POD),
            workload_name=name,
            authorization_policies=policies,
            status=WorkloadStatus.HEALTHY if pod.ready else WorkloadStatus.UNHEALTHY,
            cluster_id=self.settings.cluster_id,
            services=MappingProxyType(self._services(pod)),
            locality=self.localities.get(pod.node, Locality()),
            network_mode=(NetworkMode.HOST_NETWORK if pod.host_network else NetworkMode.STANDARD),
            last_resort=pod.last_resort,
        )

    def has_workload(self, pod: objects.PodObject) -> bool:
        """True for a pod that can be reached, and for one that starts in the mesh: its ztunnel has
        to know who it is before the kubelet says where, whichever replica hears its agent."""
        if pod.addresses:
            return not pod.is_terminal
        is_starting = bool(pod.node) and not pod.host_network and not pod.is_terminal
        return is_starting and pod_uid(pod.meta) in self.enrolled

    def placed(self, workload: Workload, pod: objects.PodObject) -> Workload:
        """The pod's workload as the claims are now."""
        services = MappingProxyType(self._services(pod))
        return replace(workload, addresses=self._addresses(pod), services=services)

    def is_alone(self, pod: objects.PodObject) -> bool:
        """True if nobody else claims an address of this pod, no slice either: only then does its
        workload depend on no other pod. Host ports are at an address of others."""
        return not pod.host_ports and not any(map(self.holdings.is_contested, pod.addresses))

    def _addresses(self, pod: objects.PodObject) -> tuple[Address, ...]:
        key = pod.meta.key
        return tuple(each for each in pod.addresses if self.holdings.has(key, each))

    def _services(self, pod: objects.PodObject) -> PodServices:
        if not pod.addresses:
            return {}  # nobody could connect to it
        meta = pod.meta
        found = self.endpoints.of(pod, self.holdings)
        for label, value in meta.labels.items():
            pair = (meta.namespace, label, value)
            for key, service in self.services_by_label.get(pair, ()):
                if selects(service.selector, meta.labels):
                    found[key] = pod_ports(service, pod)
        of_host = self.host_ports(pod)
        if of_host is not None:
            found[of_host.service.key] = of_host.ports
        return found

    def host_ports(self, pod: objects.PodObject) -> HostPortService | None:
        """The service of an enrolled pod's host ports."""
        if not pod.host_ports or pod_uid(pod.meta) not in self.enrolled:
            return None
        return host_port_service(pod, self.settings, self.holdings)


def workload_uid(meta: objects.Meta, settings: Settings) -> str:
    return f"{settings.cluster_id}//Pod/{meta.namespace}/{meta.name}"


def tunnel_protocol(pod: objects.PodObject, reported: bool) -> TunnelProtocol:
    """HBONE for a captured pod. `reported`: its node says that the capture is in force."""
    return TunnelProtocol.HBONE if is_captured(pod, reported) else TunnelProtocol.NONE


def is_workload(pod: objects.PodObject) -> bool:
    """A pod without address cannot be reached, a finished one does not run."""
    return bool(pod.addresses) and not pod.is_terminal


def make_compiler(
    found: Objects,
    settings: Settings,
    captured: Container[str],
    holdings: Holdings,
    slices: SliceMemo | None = None,
    enrolled: Container[str] = (),
) -> Compiler:
    by_name = {
        (service.meta.namespace, service.meta.name): service
        for service in found.services
        if is_in_mesh(service)
    }
    endpoints = read_slices(found.slices, by_name, settings, slices)
    by_label: dict[tuple[str, str, str], list[tuple[str, objects.ServiceObject]]] = defaultdict(
        list
    )
    for service in by_name.values():
        key = service_key(service, settings)
        if service.selector and key not in endpoints.partial:
            label, value = next(iter(service.selector.items()))
            by_label[service.meta.namespace, label, value].append((key, service))
    return Compiler(
        settings=settings,
        captured=captured,
        holdings=holdings,
        localities={node.meta.name: _locality(node.meta.labels) for node in found.nodes},
        services_by_label=by_label,
        endpoints=endpoints,
        enrolled=enrolled,
    )


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


def _locality(labels: Mapping[str, str]) -> Locality:
    return Locality(_first(labels, _REGION), _first(labels, _ZONE), _first(labels, _SUBZONE))


def _first(labels: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")
