"""Fields of objects that a scheduler, a kubelet or a service allocator would fill in. Pure.

Each function takes a manifest's value and returns a new one; nothing is changed in place.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from copy import deepcopy
from ipaddress import ip_address
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

from agent.cli.manifests import Ref, ref_of
from agent.lab import plan
from agent.lab.manifests import Manifests
from agent.lab.spec import LabSpec, NodeSpec, PodSpec, Ready
from control.kit.errors import ConfigError

NODES_FILE = "lab-nodes.yaml"
ANNOTATION_NODE = "tulle.io/lab-node"
ANNOTATION_COMMAND = "tulle.io/lab-command"
ANNOTATION_READY = "tulle.io/lab-ready-tcp"
ANNOTATION_WAYPOINT = "tulle.io/lab-waypoint"
GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"


def node_object(node: NodeSpec, address: plan.AddressPair) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": node.name}
    if node.region:
        labels["topology.kubernetes.io/region"] = node.region
    if node.zone:
        labels["topology.kubernetes.io/zone"] = node.zone
    addresses = [{"type": "InternalIP", "address": text} for text in address.both]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels},
        "status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def placed(
    pod: dict[str, Any],
    *,
    node: str,
    host: plan.AddressPair,
    address: plan.AddressPair,
    uid: str,
    ready: bool,
) -> dict[str, Any]:
    """The pod as the API server would show it once it runs on `node`."""
    value = deepcopy(pod)
    metadata = value["metadata"]
    metadata.setdefault("namespace", "default")
    metadata["uid"] = uid
    spec = value.setdefault("spec", {})
    spec["nodeName"] = node
    state = "True" if ready else "False"
    value["status"] = {
        "phase": "Running",
        "hostIP": host.v4,
        "hostIPs": [{"ip": text} for text in host.both],
        "podIP": address.v4,
        "podIPs": [{"ip": text} for text in address.both],
        "conditions": [{"type": kind, "status": state} for kind in ("ContainersReady", "Ready")],
    }
    return value


def with_ready(pod: dict[str, Any], ready: bool) -> dict[str, Any]:
    value = deepcopy(pod)
    for condition in value["status"]["conditions"]:
        condition["status"] = "True" if ready else "False"
    return value


def with_metadata(running: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The running pod with the wanted labels and annotations; None if anything else differs."""
    spec = {**(wanted.get("spec") or {}), "nodeName": running["spec"]["nodeName"]}
    if spec != running["spec"]:
        return None
    value = deepcopy(running)
    for key in ("labels", "annotations"):
        value["metadata"].pop(key, None)
        if wanted["metadata"].get(key):
            value["metadata"][key] = deepcopy(wanted["metadata"][key])
    return value


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def addresses(pod: Mapping[str, Any]) -> list[str]:
    return [item["ip"] for item in (pod.get("status") or {}).get("podIPs") or []]


def cluster_ips(service: Mapping[str, Any]) -> list[str]:
    """ClusterIPs of a service, normalised; none for headless and external-name services."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return []
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [str(ip_address(item)) for item in found if item and item != "None"]


def is_headless(service: Mapping[str, Any]) -> bool:
    return (service.get("spec") or {}).get("clusterIP") == "None"


def with_cluster_ips(service: dict[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    """The service with ClusterIPs of both families, unless it has its own or needs none."""
    spec = service.get("spec") or {}
    if is_headless(service) or spec.get("type") == "ExternalName" or cluster_ips(service):
        return service
    value, pair = deepcopy(service), plan.service_address(taken)
    value.setdefault("spec", {}).update(
        clusterIP=pair.v4,
        clusterIPs=list(pair.both),
        ipFamilyPolicy="PreferDualStack",
        ipFamilies=["IPv4", "IPv6"],
    )
    return value


def allocate_services(manifests: Manifests) -> set[str]:
    """Give every service its addresses; the names of the changed files."""
    taken = {ip for service in manifests.of_kind("Service") for ip in cluster_ips(service)}
    changed = set()
    for name, document in manifests.documents():
        if document.value.get("kind") == "Service":
            value = with_cluster_ips(document.value, taken)
            if value is not document.value:
                document.replace(value)
                taken.update(cluster_ips(value))
                changed.add(name)
    return changed


def check_pods(spec: LabSpec, manifests: Manifests) -> None:
    """ConfigError unless lab.yaml and the manifests have the same pods."""
    wanted = {pod.key for pod in spec.pods}
    found: dict[str, str] = {}
    for name, document in manifests.documents():
        if document.value["kind"] == "Pod":
            ref = document.ref
            key = f"{ref.namespace}/{ref.name}"
            if key in found:
                raise ConfigError(f"{name}:{document.line}: Pod {key} is also in {found[key]}")
            found[key] = f"{name}:{document.line}"
            if (document.value.get("spec") or {}).get("hostNetwork"):
                raise ConfigError(f"{name}:{document.line}: Pod {key}: no hostNetwork in a lab")
    missing = [
        f"{found[key]}: Pod {key} is not in lab.yaml" for key in sorted(found.keys() - wanted)
    ]
    missing += [f"lab.yaml: {key} is in no manifest" for key in sorted(wanted - found.keys())]
    if missing:
        raise ConfigError("\n".join(missing))
    pods = {pod.key: pod for pod in spec.pods}
    for value in manifests.of_kind("Pod"):
        ref = ref_of(value)
        check_waypoint(pods[f"{ref.namespace}/{ref.name}"], value)


def check_waypoint(spec: PodSpec, pod: Mapping[str, Any]) -> None:
    """ConfigError unless a pod is its Gateway's by label and account, as the mesh asks for."""
    labels = pod["metadata"].get("labels") or {}
    account = (pod.get("spec") or {}).get("serviceAccountName", "default")
    for what, found in ((GATEWAY_LABEL, labels.get(GATEWAY_LABEL)), ("its account", account)):
        if spec.waypoint and found != spec.waypoint:
            raise ConfigError(f"Pod {spec.key}: {what} is {found!r}, not {spec.waypoint!r}")


def spec_from_annotations(pod: dict[str, Any], nodes: Iterable[str], folder: Path) -> PodSpec:
    """Spec of a pod that is not in lab.yaml, from its annotations; ConfigError if they are bad."""
    ref: Ref = ref_of(pod)
    notes = pod["metadata"].get("annotations") or {}
    node, command = str(notes.get(ANNOTATION_NODE, "")), str(notes.get(ANNOTATION_COMMAND, ""))
    if node not in nodes:
        raise ConfigError(
            f"{ref}: annotation {ANNOTATION_NODE} must name one of "
            f"{', '.join(sorted(nodes))}; not {node!r}"
        )
    try:
        words = loads(command) if command.startswith("[") else shlex.split(command)
    except (JSONDecodeError, ValueError) as exc:
        raise ConfigError(f"{ref}: annotation {ANNOTATION_COMMAND}: {exc}") from exc
    waypoint = str(notes.get(ANNOTATION_WAYPOINT, ""))
    if words and waypoint:
        raise ConfigError(f"{ref}: {ANNOTATION_COMMAND} and {ANNOTATION_WAYPOINT}: one of both")
    if not words and not waypoint:
        raise ConfigError(f"{ref}: annotation {ANNOTATION_COMMAND}, the command, is missing")
    port = str(notes.get(ANNOTATION_READY, "0"))
    if not port.isdigit():
        raise ConfigError(f"{ref}: annotation {ANNOTATION_READY}: {port!r} is not a port")
    spec = PodSpec(
        namespace=ref.namespace,
        name=ref.name,
        node=node,
        command=tuple(str(word) for word in words),
        workdir=str(folder.resolve()),
        ready=Ready(tcp=int(port)),
        waypoint=waypoint,
    )
    check_waypoint(spec, pod)
    return spec
