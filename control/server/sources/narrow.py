"""JSON of an API server → the documents that the readers read, with only the fields they look at.

Most of a pod's JSON is never read: decoding it into structs with the rest left out costs a tenth. A
test compares with the whole documents; a reader that looks at a new field needs it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import astuple

from control.kube.nesting import decoded
from control.server.sources.yaml_text import Fields, Items, Value


class _Narrow(msgspec.Struct, rename="camel", omit_defaults=True):
    """Leaves are Any: the readers say best what is wrong with a value."""


class _Owner(_Narrow):
    kind: Any = None
    name: Any = None
    controller: Any = None


class _NarrowMeta(_Narrow):
    name: Any = None
    namespace: Any = None
    uid: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    labels: Any = None
    annotations: Any = None
    owner_references: list[_Owner] | None = None
    generation: Any = None


class _Plain(_Narrow):
    """A kind of which only the metadata counts."""

    metadata: _NarrowMeta | None = None


class _Port(_Narrow):
    name: Any = None
    protocol: Any = None
    container_port: Any = None
    host_port: Any = None
    host_ip: Any = msgspec.field(default=None, name="hostIP")


class _Action(_Narrow):
    host: Any = None
    port: Any = None


class _Probe(_Narrow):
    http_get: _Action | None = None
    tcp_socket: _Action | None = None
    grpc: _Action | None = None


class _Lifecycle(_Narrow):
    post_start: _Probe | None = None
    pre_stop: _Probe | None = None


class _Container(_Narrow):
    restart_policy: Any = None
    ports: list[_Port] | None = None
    liveness_probe: _Probe | None = None
    readiness_probe: _Probe | None = None
    startup_probe: _Probe | None = None
    lifecycle: _Lifecycle | None = None


class _PodSpec(_Narrow):
    service_account_name: Any = None
    service_account: Any = None
    node_name: Any = None
    host_network: Any = None
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None


class _Condition(_Narrow):
    type: Any = None
    status: Any = None


class _Ip(_Narrow):
    ip: Any = None


class PodStatus(_Narrow):
    """Fields of a pod's status that are read."""

    phase: Any = None
    pod_ip: Any = msgspec.field(default=None, name="podIP")
    pod_ips: list[_Ip] | None = msgspec.field(default=None, name="podIPs")
    host_ip: Any = msgspec.field(default=None, name="hostIP")
    host_ips: list[_Ip] | None = msgspec.field(default=None, name="hostIPs")
    conditions: list[_Condition] | None = None


class NarrowPod(_Narrow):
    """Fields of a pod that are read."""

    metadata: _NarrowMeta | None = None
    spec: _PodSpec | None = None
    status: PodStatus | None = None


class _NodeAddress(_Narrow):
    type: Any = None
    address: Any = None


class _NodeStatus(_Narrow):
    addresses: list[_NodeAddress] | None = None


class _NarrowNode(_Narrow):
    metadata: _NarrowMeta | None = None
    status: _NodeStatus | None = None


_NARROW: dict[str, msgspec.json.Decoder[Any]] = {
    "Pod": msgspec.json.Decoder(NarrowPod),
    "Node": msgspec.json.Decoder(_NarrowNode),
    "Namespace": msgspec.json.Decoder(_Plain),
    "ServiceAccount": msgspec.json.Decoder(_Plain),
}
_KEY = msgspec.msgpack.Encoder()
_LATE: dict[bytes, Items] = {}
_LATE_MAX, _LATE_BYTES_MAX = 512, 2048
_WHOLE = msgspec.json.Decoder()
_SCALARS = frozenset({str, bool, int, float, type(None)})
# Every other kind is read whole, without who wrote which field: often more than the object.
_UNREAD_META = "managedFields"


def document_of(kind: str, data: bytes) -> Fields | None:
    """The document, without line numbers. None when it is no JSON object."""
    try:
        narrow = _NARROW.get(kind)
        if narrow is not None:
            try:
                found = decoded(lambda text: _fields(narrow.decode(text)), data)
            except msgspec.ValidationError:
                found = None  # another shape: read whole, so that the reader says what is wrong
            if found is not None:
                found["kind"] = kind
                return found
        whole = decoded(lambda text: _value(_WHOLE.decode(text)), data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(whole, Fields):
        return None
    whole["kind"] = kind
    if isinstance(meta := whole.get("metadata"), Fields):
        meta.pop(_UNREAD_META, None)
    return whole


def _fields(struct: _Narrow) -> Fields:
    found = Fields(0)
    for name, value in zip(struct.__struct_encode_fields__, astuple(struct), strict=True):
        if value is not None:
            found[name] = value if value.__class__ is str else _value(value)
    return found


def _value(value: Any) -> Value:
    kind = value.__class__
    if kind in _SCALARS:
        found_scalar: Value = value
        return found_scalar
    if kind is list:
        if value and isinstance(value[0], _Narrow):  # then all of them are
            return _of_structs(value)
        return _items(map(_value, value))
    if isinstance(value, _Narrow):
        return _fields(value)
    found = Fields(0)
    for name, each in value.items():
        found[name] = _value(each)
    return found


def _items(values: Iterable[Value]) -> Items:
    items = Items(0)
    items.extend(values)
    items.lines = [0] * len(items)
    return items


def _of_structs(structs: list[_Narrow]) -> Items:
    """The pods of a Deployment have the same containers, owner and conditions: one object for all
    of them, which nobody changes. Told apart as bytes, where true is not 1."""
    if isinstance(structs[0], _Ip):  # each pod has its own
        return _items(map(_fields, structs))
    try:
        key = _KEY.encode(structs)
    except OverflowError:  # a number that no reader takes
        return _items(map(_fields, structs))
    found = _LATE.get(key)
    if found is None:
        found = _items(map(_fields, structs))
        if len(key) <= _LATE_BYTES_MAX:
            if len(_LATE) >= _LATE_MAX:
                _LATE.clear()
            _LATE[key] = found
    return found
