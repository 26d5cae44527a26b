"""Our extensions of workloads and services ↔ model values. WireError for a broken one of ours;
those of others are none of our business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.model.address import canonical
from control.model.workload import OUTER_PORTS_MAX, OuterAddress
from control.wire import extension_pb2
from control.wire import workload_pb2 as pb

WORKLOAD = "tulle.io/workload"
SERVICE = "tulle.io/service"
AFFINITY_S_MAX = 86400  # as in Kubernetes

_Extensions = Iterable[pb.Extension]


def read_workload(extensions: _Extensions) -> tuple[bool, str]:
    """True for a last resort, and the node of an endpoint that is no pod."""
    config = _config(extensions, WORKLOAD)
    if config is None:
        return False, ""
    message = _read(extension_pb2.WorkloadExtension(), config)
    return message.last_resort, message.endpoint_node


def workload_extensions(last_resort: bool, endpoint_node: str) -> list[pb.Extension]:
    if not last_resort and not endpoint_node:
        return []
    message = extension_pb2.WorkloadExtension(last_resort=last_resort, endpoint_node=endpoint_node)
    return [_made(WORKLOAD, message)]


def read_service(extensions: _Extensions) -> tuple[tuple[OuterAddress, ...], int]:
    """Outer addresses, and seconds of affinity."""
    config = _config(extensions, SERVICE)
    if config is None:
        return (), 0
    message = _read(extension_pb2.ServiceExtension(), config)
    pairs = sum(max(1, len(each.ports)) for each in message.outer_addresses)
    if message.affinity_s > AFFINITY_S_MAX or pairs > OUTER_PORTS_MAX:
        raise WireError(f"the extension {SERVICE} is out of bounds")
    return tuple(_outer(each) for each in message.outer_addresses), message.affinity_s


def service_extensions(outer: Iterable[OuterAddress], affinity_s: int) -> list[pb.Extension]:
    message = extension_pb2.ServiceExtension(
        affinity_s=affinity_s,
        outer_addresses=[
            extension_pb2.OuterAddress(
                address=pb.NetworkAddress(network=each.network, address=each.address),
                ports=each.ports,
            )
            for each in outer
        ],
    )
    return [_made(SERVICE, message)] if message.ByteSize() else []


def _config(extensions: _Extensions, name: str) -> bytes | None:
    """The last one of this name counts, as for any field of protobuf."""
    found = None
    for each in extensions:
        if each.name == name:
            found = each.config.value
    return found


_Message = extension_pb2.WorkloadExtension | extension_pb2.ServiceExtension
_AnyMessage = TypeVar("_AnyMessage", bound=_Message)


def _read(message: _AnyMessage, raw: bytes) -> _AnyMessage:
    try:
        message.ParseFromString(raw)
    except DecodeError as exc:
        raise WireError(str(exc)) from exc
    return message


def _made(name: str, message: _Message) -> pb.Extension:
    extension = pb.Extension(name=name)
    extension.config.Pack(message, deterministic=True)
    return extension


def _outer(message: extension_pb2.OuterAddress) -> OuterAddress:
    try:
        address = canonical(message.address.address)
    except ValueError as exc:
        raise WireError(str(exc)) from exc
    if any(not 0 < port < 65536 for port in message.ports):
        raise WireError("a port of an outer address is out of range")
    return OuterAddress(message.address.network, address, tuple(message.ports))
