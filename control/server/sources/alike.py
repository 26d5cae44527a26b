"""Pods that differ in nothing but what each has for itself: one is read, the others told from it.
Pure.

A pod has its name, uid, time, annotations, node and addresses for itself; the rest it has in common
with the others of its Deployment. So the readers read the first of them, and of the next ones these
fields alone are looked at, by the same rules. Whatever is unusual about one is left to the readers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any

import msgspec

from control.model.address import Address, parse_address
from control.server.sources import core
from control.server.sources.narrow import NarrowPod, PodStatus
from control.server.sources.objects import Key, Labels, Meta, PodObject
from control.server.sources.sharing import intern, shared_labels

# Deployments of a large mesh, whose pods may come in any order. Some 400 bytes each, beside what a
# pod of it has anyway.
KNOWN_MAX = 8192
_DIGEST_BYTES = 16  # nobody makes two pods with one digest

_POD = msgspec.json.Decoder(NarrowPod)
_WHOLE = msgspec.msgpack.Encoder()
_KNOWN: dict[bytes, list[Any]] = {}  # → values of a pod's fields
_NAMES = [each.name for each in fields(PodObject)]
_META, _NODE, _ADDRESSES = map(_NAMES.index, ("meta", "node", "addresses"))


@dataclass(slots=True)
class Own:
    """Fields of one pod in JSON that are its own, not checked; `common` is the rest of it."""

    common: NarrowPod
    key: bytes  # the same for all that have this in common, and no others
    name: Any
    uid: Any
    created: Any
    annotations: Any
    node: Any
    addresses: list[Any]

    def pod(self, file: str, line: int) -> PodObject | None:
        """The pod; None if none like it is known, or something about it is not as in most."""
        known = _KNOWN.get(self.key)
        if known is None:
            return None
        uid, created, node = map(_text, (self.uid, self.created, self.node))
        if self.name.__class__ is not str or None in (uid, created, node):
            return None
        is_right = core.is_name(self.name) and core.is_uid(uid) and core.is_time(created)
        annotations, addresses = _labels(self.annotations), _addresses(self.addresses)
        if not is_right or annotations is None or addresses is None:
            return None
        like: Meta = known[_META]
        values = known.copy()
        values[_META] = Meta(
            key=Key("Pod", like.namespace, self.name),
            file=file,
            line=line,
            labels=like.labels,
            annotations=core.without_copy(annotations),
            uid=uid,
            created=intern(created),
        )
        values[_NODE], values[_ADDRESSES] = intern(node), addresses
        return PodObject(*values)

    def remember(self, pod: PodObject) -> None:
        """The readers have read it: others may be like it. Ports of its host are its own, too."""
        if _has_host_ports(self.common):
            return
        if len(_KNOWN) >= KNOWN_MAX:
            _KNOWN.clear()
        _KNOWN[self.key] = [getattr(pod, name) for name in _NAMES]


def own_of(data: bytes) -> Own | None:
    """Apart from what others have, too. None: not JSON of a usual pod."""
    try:
        found = _POD.decode(data)
        meta, spec, status = found.metadata, found.spec, found.status
        if meta is None or spec is None or status is None:
            return None
        own = Own(
            common=found,
            key=b"",
            name=meta.name,
            uid=meta.uid,
            created=meta.creation_timestamp,
            annotations=meta.annotations,
            node=spec.node_name,
            addresses=_ips(status),
        )
        meta.name = meta.uid = meta.creation_timestamp = meta.annotations = spec.node_name = None
        status.pod_ip = status.pod_ips = status.host_ip = status.host_ips = None
        own.key = blake2b(_WHOLE.encode(found), digest_size=_DIGEST_BYTES).digest()
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError):
        return None
    return own


def _ips(status: PodStatus) -> list[Any]:
    """Those that the readers would take."""
    if status.pod_ips:
        return [each.ip for each in status.pod_ips]
    return [] if status.pod_ip is None or status.pod_ip == "" else [status.pod_ip]


def _text(found: Any) -> Any:
    """A null is no text; None: something else."""
    return "" if found is None else found if found.__class__ is str else None


def _labels(found: Any) -> Labels | None:
    """None: not a mapping of texts."""
    if found is None:
        return shared_labels(())
    if found.__class__ is not dict or not all(each.__class__ is str for each in found.values()):
        return None
    return shared_labels(found.items())


def _addresses(found: Iterable[Any]) -> tuple[Address, ...] | None:
    """None: not addresses."""
    try:
        return tuple(dict.fromkeys(parse_address(each) for each in found))
    except (TypeError, ValueError):
        return None


def _has_host_ports(pod: NarrowPod) -> bool:
    spec = pod.spec
    if spec is None:
        return False
    containers = (*(spec.containers or ()), *(spec.init_containers or ()))
    return any(port.host_port is not None for each in containers for port in each.ports or ())
