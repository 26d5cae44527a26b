"""Documents of the core kinds → objects, with the API server's defaults filled in.

Fields that the mesh does not read are not looked at; those it reads must have the right type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from control.model.address import Address, parse_address
from control.server.sources.host_ports import read_host_ports
from control.server.sources.objects import (
    ContainerPort,
    Key,
    Labels,
    Meta,
    Namespace,
    NodeObject,
    Owner,
    PodObject,
    ServiceAccount,
)
from control.server.sources.probes import Probes, read_probes
from control.server.sources.problem import Invalid
from control.server.sources.reader import Reader
from control.server.sources.sharing import intern, shared, shared_labels
from control.server.sources.yaml_text import Fields, Items, Value

DEFAULT_NAMESPACE = "default"
CLUSTER_KINDS = frozenset({"Namespace", "Node", "GatewayClass"})
# Kinds with a status of ours: it says which text it is about.
_WITH_STATUS = (
    "AuthorizationPolicy",
    "PeerAuthentication",
    "Gateway",
    "HTTPRoute",
    "GRPCRoute",
    "TCPRoute",
)
_UID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}")
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_CREATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_NODE_ADDRESS_TYPES = ("InternalIP", "ExternalIP")


def read_key(document: Reader) -> Key:
    """Kind, namespace and name; raises Invalid when they are not those of an object."""
    kind = document.text("kind")
    meta = document.child("metadata")
    if meta is None:
        raise Invalid("metadata is missing", document.line())
    name = _checked_name(meta, "name", meta.text("name"))
    if kind in CLUSTER_KINDS:
        return Key(kind, "", name)
    namespace = meta.text("namespace") or DEFAULT_NAMESPACE
    return Key(kind, intern(_checked_name(meta, "namespace", namespace)), name)


def _checked_name(meta: Reader, field: str, name: str) -> str:
    if not name:
        raise meta.invalid(field, "is missing")
    if not is_name(name):
        raise meta.invalid(field, f"{name!r} is not a Kubernetes name")
    return name


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def is_uid(text: str) -> bool:
    """True for none as well."""
    return not text or _UID.fullmatch(text) is not None


def is_time(text: str) -> bool:
    """True for none as well."""
    return not text or _CREATED.fullmatch(text) is not None


def without_copy(annotations: Labels) -> Labels:
    """Annotations without the one that has the whole object once more."""
    if _LAST_APPLIED not in annotations:
        return annotations
    return shared_labels(
        (name, text) for name, text in annotations.items() if name != _LAST_APPLIED
    )


def read_meta(document: Reader, key: Key, file: str) -> Meta:
    meta = document.part("metadata")
    uid = meta.text("uid")
    if not is_uid(uid):
        raise meta.invalid("uid", f"{uid!r} is not a uid")
    created = meta.text("creationTimestamp")
    if not is_time(created):
        raise meta.invalid("creationTimestamp", f"{created!r} is not a time like RFC 3339 in UTC")
    return Meta(
        key=key,
        file=file,
        line=document.line(),
        labels=meta.labels("labels"),
        annotations=without_copy(meta.labels("annotations")),
        uid=uid,
        created=intern(created),
        generation=generation_of(document, key),
    )


def generation_of(document: Reader, key: Key) -> int:
    """The generation of an object that we report on; 0 for others, and where it is not said."""
    if key.kind not in _WITH_STATUS:
        return 0
    metadata = document.fields.get("metadata")
    found = metadata.get("generation") if isinstance(metadata, Fields) else 0
    return found if isinstance(found, int) and found > 0 else 0


def uid_of(document: Reader) -> str:
    """The uid, if it is one."""
    metadata = document.fields.get("metadata")
    found = metadata.get("uid") if isinstance(metadata, Fields) else None
    return found if isinstance(found, str) and _UID.fullmatch(found) else ""


def read_namespace(document: Reader, meta: Meta) -> Namespace:
    return Namespace(meta)


def read_service_account(document: Reader, meta: Meta) -> ServiceAccount:
    return ServiceAccount(meta)


def read_node(document: Reader, meta: Meta) -> NodeObject:
    addresses = (
        read_address(each, "address", each.text("address"))
        for each in document.part("status").children("addresses")
        if each.text("type") in _NODE_ADDRESS_TYPES
    )
    return NodeObject(meta, tuple(dict.fromkeys(addresses)))


def read_pod(document: Reader, meta: Meta) -> PodObject:
    spec, status = document.part("spec"), document.part("status")
    # `serviceAccount` is the old name; the API server keeps both in step.
    account = spec.text("serviceAccountName") or spec.text("serviceAccount")
    phase = status.text("phase")
    serves = _serves(status, phase)
    is_leaving = "deletionTimestamp" in document.part("metadata")
    containers = _containers(spec)
    return PodObject(
        meta=meta,
        service_account=intern(account or "default"),
        node=intern(spec.text("nodeName")),
        host_network=spec.flag("hostNetwork"),
        owner=_owner(document.part("metadata")),
        ports=containers.ports,
        phase=intern(phase),
        addresses=_pod_addresses(status),
        ready=serves and not is_leaving,
        last_resort=serves and is_leaving,
        is_leaving=is_leaving,
        probes=containers.probes,
        host_ports=read_host_ports(spec, status) if containers.has_host_ports else (),
    )


def _owner(meta: Reader) -> Owner | None:
    for each in meta.children("ownerReferences"):
        if each.flag("controller"):
            return shared(Owner(each.text("kind"), each.text("name")))
    return None


@dataclass(frozen=True, slots=True)
class _Containers:
    """All that is read of a pod's containers. `inits` is the list of its init containers."""

    inits: Value
    ports: tuple[ContainerPort, ...]
    probes: Probes
    has_host_ports: bool


def _containers(spec: Reader) -> _Containers:
    """Pods of a Deployment may have the same lists, as objects: read once."""
    lasting, inits = spec.fields.get("containers"), spec.fields.get("initContainers")
    known = lasting.made if isinstance(lasting, Items) else None
    if isinstance(known, _Containers) and known.inits is inits:
        return known
    found = _Containers(inits, _container_ports(spec), read_probes(spec), _has_host_ports(spec))
    if isinstance(lasting, Items):
        lasting.made = found
    return found


def _lasting(spec: Reader) -> list[Reader]:
    """A native sidecar is an init container that keeps running; its ports count as well."""
    inits = spec.children("initContainers")
    sidecars = [each for each in inits if each.text("restartPolicy") == "Always"]
    return [*spec.children("containers"), *sidecars]


def _has_host_ports(spec: Reader) -> bool:
    return any("hostPort" in port for each in _lasting(spec) for port in each.children("ports"))


def _container_ports(spec: Reader) -> tuple[ContainerPort, ...]:
    found = []
    for container in _lasting(spec):
        for port in container.children("ports"):
            number = port.port("containerPort")
            if number is None:
                raise port.invalid("containerPort", "is missing")
            found.append(ContainerPort(port.text("name"), read_protocol(port), number))
    return shared(tuple(found))


def read_protocol(port: Reader) -> str:
    protocol = port.text("protocol") or "TCP"
    if protocol not in _PROTOCOLS:
        raise port.invalid("protocol", f"{protocol!r} is not TCP, UDP or SCTP")
    return protocol


def _pod_addresses(status: Reader) -> tuple[Address, ...]:
    found = [read_address(each, "ip", each.text("ip")) for each in status.children("podIPs")]
    if not found and status.text("podIP"):
        found = [read_address(status, "podIP", status.text("podIP"))]
    return tuple(dict.fromkeys(found))


def read_address(reader: Reader, key: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as exc:
        raise reader.invalid(key, f"{text!r} is not an IP address") from exc


def _serves(status: Reader, phase: str) -> bool:
    """Readiness by the kubelet's condition. Where none was ever written, a running pod is ready."""
    conditions = status.children("conditions")
    if not conditions:
        return phase in ("", "Running")
    return any(
        each.text("type") == "Ready" and each.text("status") == "True" for each in conditions
    )
