"""Pods → workloads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from control.model.workload import (
    GatewayAddress,
    NetworkMode,
    Port,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadType,
)
from control.server.compile.endpoints import Endpoints
from control.server.compile.holdings import Holdings
from control.server.compile.host_ports import HostPortService, host_port_service
from control.server.compile.localities import Localities, first_label
from control.server.compile.pods import is_captured
from control.server.compile.residents import Resident
from control.server.compile.rulebook import Rulebook
from control.server.compile.selectors import Selectors
from control.server.compile.services import pod_ports
from control.server.compile.settings import Settings
from control.server.compile.waypoints import Waypoints
from control.server.sources import objects
from control.server.sources.objects import Key

_CANONICAL_NAME = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_CANONICAL_REVISION = (
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
)
# Kinds of pods that are remembered, some 0.5 KiB each: those of a Deployment come together, and to
# forget 50,000 in one go takes 30 ms.
LIKE_MAX = 128
# A CronJob names its Jobs `<name>-<minutes since 1970>`.
_CRON_JOB = re.compile(r"(.+)-[0-9]{8,10}")
_TYPES = {
    "Deployment": WorkloadType.DEPLOYMENT,
    "Job": WorkloadType.JOB,
    "CronJob": WorkloadType.CRONJOB,
}
_Services = Mapping[str, tuple[Port, ...]]
_NO_SERVICES: _Services = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Likeness:
    """Everything that pods have alike which have the same labels, owner and ports. `first` is one
    of them: while it is held, nothing that comes later can be where its labels are."""

    first: objects.PodObject
    policies: tuple[str, ...]
    services: _Services  # by selectors
    workload_type: WorkloadType
    workload_name: str | None  # None: the pod's own
    canonical_name: str
    canonical_revision: str
    waypoint: GatewayAddress | None


@dataclass(frozen=True, slots=True)
class Compiler:
    """Indexes for turning pods into workloads. They are others' and change, but not between two
    calls of `forget`."""

    settings: Settings
    rulebook: Rulebook
    holdings: Holdings
    localities: Localities
    endpoints: Endpoints  # from slices, which win over selectors
    selecting: Selectors[objects.ServiceObject]  # the services without slices
    names: Mapping[Key, str]  # services on the wire
    waypoints: Waypoints

    # Sources give equal labels, owners and ports as one object, so these are told apart as such.
    _like: dict[tuple[str, int, int, int], _Likeness] = field(default_factory=dict)

    def forget(self) -> None:
        """The indexes have changed, or are about to."""
        self._like.clear()

    def workload(self, resident: Resident) -> Workload:
        """One that has lost an address to another claim does not have it here either."""
        pod = resident.pod
        meta = pod.meta
        key, like = meta.key, self._likeness(pod)
        name = key.name if like.workload_name is None else like.workload_name
        has = self.holdings.has
        return Workload(
            uid=workload_uid(key, self.settings),
            name=key.name,
            namespace=key.namespace,
            addresses=tuple([each for each in pod.addresses if has(key, each)]),
            network=self.settings.network,
            tunnel_protocol=tunnel_protocol(pod, resident.is_captured or resident.is_waypoint),
            trust_domain=self.settings.trust_domain,
            service_account=pod.service_account,
            waypoint=None if resident.is_waypoint or pod.host_network else like.waypoint,
            node=pod.node,
            canonical_name=like.canonical_name or name,
            canonical_revision=like.canonical_revision,
            workload_type=like.workload_type,
            workload_name=name,
            authorization_policies=like.policies,
            status=WorkloadStatus.HEALTHY if pod.ready else WorkloadStatus.UNHEALTHY,
            cluster_id=self.settings.cluster_id,
            services=self._services(resident, like),
            locality=self.localities.of(pod.node),
            network_mode=(NetworkMode.HOST_NETWORK if pod.host_network else NetworkMode.STANDARD),
            last_resort=pod.last_resort,
        )

    def _likeness(self, pod: objects.PodObject) -> _Likeness:
        labels = pod.meta.labels
        place = pod.meta.namespace, id(labels), id(pod.owner), id(pod.ports)
        found = self._like.get(place)
        if found is None:
            if len(self._like) >= LIKE_MAX:
                self._like.clear()
            namespace = pod.meta.namespace
            kind, name = _owner(pod)
            services = {
                self.names[key]: pod_ports(service, pod)
                for key, service in self.selecting.of(namespace, labels)
            }
            found = self._like[place] = _Likeness(
                first=pod,
                policies=self.rulebook.policies_of(namespace, labels),
                services=MappingProxyType(services),
                workload_type=_TYPES.get(kind, WorkloadType.POD),
                workload_name=name,
                canonical_name=first_label(labels, _CANONICAL_NAME),
                canonical_revision=first_label(labels, _CANONICAL_REVISION) or "latest",
                waypoint=self.waypoints.address(self.waypoints.of_workload(namespace, labels)),
            )
        return found

    def _services(self, resident: Resident, like: _Likeness) -> _Services:
        pod = resident.pod
        if not pod.addresses:
            return _NO_SERVICES  # nobody could connect to it
        found = self.endpoints.of(pod, self.holdings)
        of_host = self.host_ports(resident)
        if not found and of_host is None:
            return like.services
        found.update(like.services)
        if of_host is not None:
            found[of_host.service.key] = of_host.ports
        return MappingProxyType(found)

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
    """HBONE for a captured pod. `reported`: its node says that the capture is in force, or it takes
    tunnels itself."""
    return TunnelProtocol.HBONE if is_captured(pod, reported) else TunnelProtocol.NONE


def _owner(pod: objects.PodObject) -> tuple[str, str | None]:
    """Kind and name of the object that a person created: a Deployment, not its ReplicaSet; no name
    for the pod itself."""
    owner = pod.owner
    if owner is None:
        return "Pod", None
    if owner.kind == "ReplicaSet":
        suffix = "-" + pod.meta.labels.get("pod-template-hash", "")
        if len(suffix) > 1 and owner.name.endswith(suffix) and owner.name != suffix:
            return "Deployment", owner.name.removesuffix(suffix)
    elif owner.kind == "Job" and (found := _CRON_JOB.fullmatch(owner.name)):
        return "CronJob", found[1]
    return owner.kind, owner.name
