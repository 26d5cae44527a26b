"""Parts of /config_dump: the mesh as this node knows it, in the field names of Istio's ztunnel.

Pure: values in, JSON out. No private key can get here, because nothing here sees one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from control.model.address import CidrBlock, format_address
from control.model.identity import SpiffeId
from control.model.policy import (
    Match,
    Policy,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from control.model.workload import (
    GatewayAddress,
    NamespacedHostname,
    NetworkAddress,
    Port,
    Service,
    Workload,
    WorkloadStatus,
)
from ztunnel.identity.csr import Issued
from ztunnel.mesh.state import State
from ztunnel.supervisor.direct import DirectHub
from ztunnel.tenants.figures import Figures, add


def workloads(state: State) -> list[dict[str, Any]]:
    return [workload(each) for each in state.workloads()]


def services(state: State) -> list[dict[str, Any]]:
    """All services. Endpoints are collected here: the state would keep them all decoded."""
    endpoints: dict[str, list[Workload]] = {}
    for each in state.workloads():
        for key in each.services:
            endpoints.setdefault(key, []).append(each)
    return [service(each, endpoints.get(each.key, ())) for each in state.services()]


def policies(state: State) -> list[dict[str, Any]]:
    return [policy(each) for each in state.policies()]


def workload(value: Workload) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "uid": value.uid,
        "workloadIps": [format_address(each) for each in value.addresses],
        "protocol": "HBONE" if value.tunnel_protocol.value else "TCP",
        "name": value.name,
        "namespace": value.namespace,
        "serviceAccount": value.service_account,
        "trustDomain": value.trust_domain,
        "workloadName": value.workload_name,
        "workloadType": value.workload_type.name.lower(),
        "canonicalName": value.canonical_name,
        "canonicalRevision": value.canonical_revision,
        "clusterId": value.cluster_id,
        "network": value.network,
        "node": value.node,
        "nativeTunnel": value.native_tunnel,
        "networkMode": _words(value.network_mode.name),
        "status": _words(value.status.name),
        "hostname": value.hostname,
        "capacity": value.capacity,
        "services": sorted(value.services),
        "authorizationPolicies": list(value.authorization_policies),
        "locality": {
            "region": value.locality.region,
            "zone": value.locality.zone,
            "subzone": value.locality.subzone,
        },
    }
    if value.waypoint is not None:
        shown["waypoint"] = _gateway(value.waypoint)
    if value.network_gateway is not None:
        shown["networkGateway"] = _gateway(value.network_gateway)
    if value.application_tunnel is not None:
        protocol = "PROXY" if value.application_tunnel.proxy else "NONE"
        shown["applicationTunnel"] = {"protocol": protocol, "port": value.application_tunnel.port}
    return shown


def service(value: Service, endpoints: Iterable[Workload]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": value.name,
        "namespace": value.namespace,
        "hostname": value.hostname,
        "vips": [_network_address(each) for each in value.addresses],
        "ports": _ports(value.ports),
        "endpoints": {
            each.uid: {
                "workloadUid": each.uid,
                "service": value.key,
                "port": _ports(each.services.get(value.key, ())),
                "status": _words(each.status.name),
                "healthy": each.status is WorkloadStatus.HEALTHY,
                "lastResort": each.last_resort,
            }
            for each in endpoints
        },
        "subjectAltNames": list(value.subject_alt_names),
        "ipFamilies": value.ip_families.name,
        "canonical": value.canonical,
        "visibility": _words(value.visibility.name),
    }
    if value.outer_addresses:
        shown["outerAddresses"] = {
            f"{each.network}/{format_address(each.address)}": list(each.ports)
            for each in value.outer_addresses
        }
    if value.affinity_s:
        shown["affinitySeconds"] = value.affinity_s
    if value.waypoint is not None:
        shown["waypoint"] = _gateway(value.waypoint)
    if value.weighted_waypoints:
        shown["weightedWaypoints"] = [
            {"destination": _gateway(each.destination), "weight": each.weight}
            for each in value.weighted_waypoints
        ]
    if value.load_balancing is not None:
        shown["loadBalancer"] = {
            "routingPreferences": [each.name for each in value.load_balancing.routing_preference],
            "mode": _words(value.load_balancing.mode.name),
            "healthPolicy": _words(value.load_balancing.health_policy.name),
        }
    return shown


def policy(value: Policy) -> dict[str, Any]:
    return {
        "name": value.name,
        "namespace": value.namespace,
        "scope": _words(value.scope.name),
        "action": _words(value.action.name),
        "dryRun": value.dry_run,
        "rules": [
            [[_match(match) for match in clause.matches_any] for clause in rule.clauses]
            for rule in value.rules
        ],
    }


def direct(hub: DirectHub, answers: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """State of the direct path. `answers` are the workers' answers about their connections."""
    link = hub.link
    if link is None:
        return {"enabled": False}
    told = [answer.get("direct", {}) for answer in answers.values()]
    return {
        "enabled": True,
        "connected": link.status.connected,
        "generation": link.generation,
        "acknowledged": link.status.acknowledged,
        "error": link.status.error,
        "unknownLines": link.status.unknown_kinds,
        "verdictsSent": hub.lines.get("verdict", 0),
        "flows": sum(each.get("flows", 0) for each in told),
        "services": sum(each.get("services", 0) for each in told),
    }


def tenants(answers: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Holdings of each pod, peer and address, of all workers: a row for those that use most."""
    found: dict[tuple[str, str], Figures] = {}
    for answer in answers.values():
        for row in answer.get("tenants", ()):
            names = {"kind": str(row.get("kind")), "name": str(row.get("name"))}
            add(found.setdefault((names["kind"], names["name"]), dict(names)), row)
    return list(found.values())


def certificate(identity: SpiffeId, issued: Issued | None, failure: str) -> dict[str, Any]:
    if issued is None:
        state = f"Unavailable: {failure}" if failure else "Initializing"
        return {"identity": str(identity), "state": state, "certChain": [], "rootCerts": []}
    chain = [x509.load_pem_x509_certificate(each.encode()) for each in issued.chain_pem]
    roots = x509.load_pem_x509_certificates(issued.roots_pem.encode())
    shown: dict[str, Any] = {
        "identity": str(identity),
        "state": "Available",
        "certChain": [_certificate(each) for each in chain],
        "rootCerts": [_certificate(each) for each in roots],
        "receivedAt": _moment(issued.received),
    }
    if failure:
        shown["lastError"] = failure
    return shown


def _certificate(value: x509.Certificate) -> dict[str, str]:
    return {
        "pem": base64.b64encode(value.public_bytes(Encoding.PEM)).decode(),
        "serialNumber": str(value.serial_number),
        "validFrom": _moment(value.not_valid_before_utc),
        "expirationTime": _moment(value.not_valid_after_utc),
    }


def _moment(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def _match(value: Match) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "namespaces": _strings(value.namespaces),
        "notNamespaces": _strings(value.not_namespaces),
        "principals": _strings(value.principals),
        "notPrincipals": _strings(value.not_principals),
        "serviceAccounts": _accounts(value.service_accounts),
        "notServiceAccounts": _accounts(value.not_service_accounts),
        "sourceIps": _blocks(value.source_ips),
        "notSourceIps": _blocks(value.not_source_ips),
        "destinationIps": _blocks(value.destination_ips),
        "notDestinationIps": _blocks(value.not_destination_ips),
        "destinationPorts": list(value.destination_ports),
        "notDestinationPorts": list(value.not_destination_ports),
    }
    return {name: content for name, content in fields.items() if content}


def _strings(values: Iterable[StringMatch]) -> list[dict[str, Any]]:
    return [
        {_words(each.kind.name): [] if each.kind is StringMatchKind.PRESENCE else each.value}
        for each in values
    ]


def _accounts(values: Iterable[ServiceAccountMatch]) -> list[dict[str, str]]:
    return [
        {"namespace": each.namespace, "serviceAccount": each.service_account} for each in values
    ]


def _blocks(values: Iterable[CidrBlock]) -> list[str]:
    return [str(each) for each in values]


def _ports(values: Iterable[Port]) -> dict[str, int]:
    return {str(each.service_port): each.target_port for each in values}


def _gateway(value: GatewayAddress) -> dict[str, Any]:
    """`namespace/hostname`, or `network/address`."""
    destination = value.destination
    if isinstance(destination, NamespacedHostname):
        where = str(destination)
    else:
        where = _network_address(destination)
    return {"destination": where, "hboneMtlsPort": value.hbone_port}


def _network_address(value: NetworkAddress) -> str:
    """`network/address`; a block has its length behind."""
    text = f"{value.network}/{format_address(value.address)}"
    return text if value.length is None else f"{text}/{value.length}"


def _words(name: str) -> str:
    """`WORKLOAD_SELECTOR` → `WorkloadSelector`."""
    return "".join(part.capitalize() for part in name.split("_"))
