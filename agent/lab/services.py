"""Names and virtual addresses of services, as text for /etc/hosts and for nft. Pure.

They stand in for kube-proxy and the cluster's DNS, for traffic outside the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from agent.lab import objects
from agent.lab.manifests import Manifests

DOMAIN = "cluster.local"
TABLE = "tulle_lab"
_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


@dataclass(frozen=True, slots=True)
class Virtual:
    """One port of a service address and the endpoints behind it."""

    address: str
    protocol: str
    port: int
    endpoints: tuple[tuple[str, int], ...]


def hosts_text(manifests: Manifests, pod: Mapping[str, Any]) -> str:
    """/etc/hosts of a pod: itself and every service, with short names in its own namespace."""
    own = pod["metadata"]
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {own['name']}" for address in objects.addresses(pod)]
    for service in manifests.of_kind("Service"):
        name, namespace = service["metadata"]["name"], _namespace(service)
        names = [f"{name}.{namespace}{tail}" for tail in (f".svc.{DOMAIN}", ".svc", "")]
        if namespace == own.get("namespace", "default"):
            names.append(name)
        if objects.is_headless(service):
            lines += _headless_lines(manifests, service, names)
        else:
            lines += [f"{address} {' '.join(names)}" for address in objects.cluster_ips(service)]
    return "\n".join(lines) + "\n"


def _headless_lines(
    manifests: Manifests, service: Mapping[str, Any], names: list[str]
) -> Iterator[str]:
    for pod in ready_pods(manifests, service):
        spec, extra = pod.get("spec") or {}, []
        if spec.get("subdomain") == service["metadata"]["name"]:
            host = spec.get("hostname") or pod["metadata"]["name"]
            extra = [f"{host}.{name}" for name in names]
        for address in objects.addresses(pod):
            yield f"{address} {' '.join([*names, *extra])}"


def ready_pods(manifests: Manifests, service: Mapping[str, Any]) -> list[dict[str, Any]]:
    selector = (service.get("spec") or {}).get("selector") or {}
    if not selector:
        return []
    found = []
    for pod in manifests.of_kind("Pod"):
        labels = pod["metadata"].get("labels") or {}
        if (
            _namespace(pod) == _namespace(service)
            and objects.is_ready(pod)
            and selector.items() <= labels.items()
        ):
            found.append(pod)
    return found


def virtuals(manifests: Manifests) -> list[Virtual]:
    """Every address and port of every service that has a ClusterIP."""
    found = []
    for service in manifests.of_kind("Service"):
        for address in objects.cluster_ips(service):
            for port in (service.get("spec") or {}).get("ports") or []:
                protocol = _PROTOCOLS.get(port.get("protocol", "TCP"))
                if protocol is not None:
                    behind = tuple(_endpoints(manifests, service, port, address))
                    found.append(Virtual(address, protocol, int(port["port"]), behind))
    return found


def _endpoints(
    manifests: Manifests, service: Mapping[str, Any], port: Mapping[str, Any], address: str
) -> Iterator[tuple[str, int]]:
    version = ip_address(address).version
    target = port.get("targetPort", port["port"])
    for pod in ready_pods(manifests, service):
        number = target if isinstance(target, int) else _named_port(pod, str(target))
        for candidate in objects.addresses(pod):
            if number and ip_address(candidate).version == version:
                yield candidate, number
    if not (service.get("spec") or {}).get("selector"):
        yield from _slice_endpoints(manifests, service, port, version)


def _slice_endpoints(
    manifests: Manifests, service: Mapping[str, Any], port: Mapping[str, Any], version: int
) -> Iterator[tuple[str, int]]:
    for piece in manifests.of_kind("EndpointSlice"):
        labels = piece["metadata"].get("labels") or {}
        owner = (_namespace(piece), labels.get("kubernetes.io/service-name"))
        if owner != (_namespace(service), service["metadata"]["name"]):
            continue
        numbers = [
            item["port"]
            for item in piece.get("ports") or []
            if item.get("name", "") == port.get("name", "")
        ]
        for endpoint in piece.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready", True) and numbers:
                for address in endpoint["addresses"]:
                    if ip_address(address).version == version:
                        yield address, int(numbers[0])


def _named_port(pod: Mapping[str, Any], name: str) -> int:
    for container in (pod.get("spec") or {}).get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name") == name:
                return int(port["containerPort"])
    return 0


def _namespace(value: Mapping[str, Any]) -> str:
    return str(value["metadata"].get("namespace") or "default")


def nft_text(found: list[Virtual]) -> str:
    """Rule set of a node; loading it replaces the previous one in one transaction."""
    rules = [rule for item in found if (rule := _nft_rule(item))]
    hairpins = sorted({address for item in found for address, _ in item.endpoints})
    masquerades = [
        f"{_family(address)} saddr {address} {_family(address)} daddr {address} masquerade"
        for address in hairpins
    ]
    body = "\n".join(f"    {rule}" for rule in rules)
    return (
        f"table inet {TABLE}\n"  # the deletion needs one
        f"delete table inet {TABLE}\n"
        f"table inet {TABLE} {{\n"
        f"  chain services {{\n{body}\n  }}\n"
        "  chain prerouting {\n    type nat hook prerouting priority dstnat;\n"
        "    jump services\n  }\n"
        "  chain output {\n    type nat hook output priority -100;\n    jump services\n  }\n"
        "  chain postrouting {\n    type nat hook postrouting priority srcnat;\n"
        + "".join(f"    ct status dnat {rule}\n" for rule in masquerades)
        + "  }\n}\n"
    )


def _nft_rule(item: Virtual) -> str:
    """DNAT to a random endpoint; none without endpoints: connects then fail for want of a route."""
    if not item.endpoints:
        return ""
    family = _family(item.address)
    targets = ", ".join(
        f"{index} : {address} . {port}" for index, (address, port) in enumerate(item.endpoints)
    )
    match = f"{family} daddr {item.address} {item.protocol} dport {item.port}"
    if len(item.endpoints) == 1:
        address, port = item.endpoints[0]
        target = f"[{address}]:{port}" if family == "ip6" else f"{address}:{port}"
        return f"{match} dnat {family} to {target}"
    choice = f"numgen random mod {len(item.endpoints)} map {{ {targets} }}"
    return f"{match} dnat {family} to {choice}"


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"
