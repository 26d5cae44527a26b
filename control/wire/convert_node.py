"""Intents ↔ bytes of `tulle.node.v1`: the one codec that control plane and agent share."""

from __future__ import annotations

import re

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.model.intent import PROBE_PORTS_MAX, Intent, NamespaceIntent
from control.model.workload import DEFAULT_SERVICE_ACCOUNT
from control.wire import node_pb2 as pb
from control.wire.convert import address_from_wire

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123, as Kubernetes has it


def encode_intent(value: Intent) -> bytes:
    """Serialize deterministically: the version of the resource is a hash of these bytes."""
    return pb.Pod(
        uid=value.uid,
        name=value.name,
        namespace=value.namespace,
        service_account=value.service_account,
        node=value.node,
        addresses=value.addresses,
        enrolled=value.enrolled,
        reason=value.reason,
        direct=value.direct,
        direct_reason=value.direct_reason,
        probe_ports=value.probe_ports,
    ).SerializeToString(deterministic=True)


def decode_intent(data: bytes) -> Intent:
    """Parse a pod's intent. WireError: it is not one, or a name, address or port is unusable."""
    try:
        message = pb.Pod.FromString(data)
    except DecodeError as exc:
        raise WireError("not a tulle.node.v1.Pod") from exc
    if not message.uid or not message.name or not message.namespace:
        raise WireError("a pod without uid, name or namespace")
    probe_ports = tuple(message.probe_ports[:PROBE_PORTS_MAX])
    if not all(0 < port < 65536 for port in probe_ports):
        raise WireError("a probe's port out of range")
    return Intent(
        uid=message.uid,
        name=message.name,
        namespace=message.namespace,
        service_account=message.service_account or DEFAULT_SERVICE_ACCOUNT,
        node=message.node,
        addresses=tuple(address_from_wire(each) for each in message.addresses),
        enrolled=message.enrolled,
        reason=message.reason,
        direct=message.direct,
        direct_reason=message.direct_reason,
        probe_ports=probe_ports,
    )


def encode_namespace(value: NamespaceIntent) -> bytes:
    return pb.Namespace(name=value.name, enrols=value.enrols).SerializeToString(deterministic=True)


def decode_namespace(data: bytes) -> NamespaceIntent:
    """Parse the word on a namespace. WireError: it is none, or the name is no namespace's."""
    try:
        message = pb.Namespace.FromString(data)
    except DecodeError as exc:
        raise WireError("not a tulle.node.v1.Namespace") from exc
    if _NAMESPACE.fullmatch(message.name) is None:
        raise WireError(f"not the name of a namespace: {message.name!r}")
    return NamespaceIntent(message.name, message.enrols)
