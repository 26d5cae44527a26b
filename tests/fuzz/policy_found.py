"""Objects of the policy model, one by one: their keys, and what is wrong with them.

Shares no code with the product.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from tests.fuzz import policy_form as form
from tests.fuzz.policy_form import Check, Tree, anything, listing, mapping, open_mapping, text
from tests.fuzz.policy_service_form import (
    no_address,
    service_spec,
    service_status,
    slice_parts,
)

Key = tuple[str, str, str]  # kind, namespace, name

POLICIES = ("AuthorizationPolicy", "PeerAuthentication")
_SECURITY = ("security.istio.io/v1", "security.istio.io/v1beta1")
API_VERSIONS = {
    **dict.fromkeys(POLICIES, _SECURITY),
    **dict.fromkeys(("Namespace", "Pod", "Service"), ("v1",)),
    "EndpointSlice": ("discovery.k8s.io/v1",),
}
WITHOUT_NAMESPACE = ("Namespace",)
DEFAULT_NAMESPACE = "default"

# Form of the other kinds: only what a mesh reads

_owner = open_mapping({"controller": form.flag, "kind": text, "name": text})
metadata = open_mapping(
    {
        "labels": form.texts_by_name,
        "annotations": form.texts_by_name,
        "uid": form.shaped(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}"),
        "creationTimestamp": form.shaped(
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z"
        ),
        "ownerReferences": listing(_owner, least=0),
    }
)
_container = open_mapping(
    {
        "ports": listing(
            open_mapping({"name": text, "containerPort": form.number}, ("containerPort",)), least=0
        ),
        "restartPolicy": text,
    }
)
_containers = listing(_container, least=0)
pod_spec = open_mapping(
    {
        "serviceAccountName": text,
        "serviceAccount": text,
        "nodeName": text,
        "hostNetwork": form.flag,
        "containers": _containers,
        "initContainers": _containers,
    }
)


def pod_status(value: Any) -> str:
    ips = listing(open_mapping({"ip": form.address}, ("ip",)), least=0)
    complaint = open_mapping({"phase": text, "podIPs": ips})(value)
    if complaint or value.get("podIPs"):
        return complaint
    return open_mapping({"podIP": form.any_of(no_address, form.address)})(value)


PARTS: dict[str, dict[str, Check]] = {
    "AuthorizationPolicy": {"spec": form.authorization},
    "PeerAuthentication": {"spec": form.peer_authentication},
    "Namespace": {},
    "Pod": {"spec": pod_spec, "status": pod_status},
    "Service": {"spec": service_spec, "status": service_status},
    "EndpointSlice": slice_parts,
}


@dataclass(frozen=True)
class Found:
    """One object of a folder: its key, and a complaint if it cannot be understood."""

    key: Key
    tree: Tree
    complaint: str
    is_guess: bool = False
    unplaced: Any = None  # in place of its namespace
    said: Key | None = None  # its key in the problem about it; none: there is one already


def look(tree: Any, place: str) -> Found | None:
    """None for what is no policy and has no readable key: nothing is known about it."""
    if not isinstance(tree, dict):
        return None
    kind = tree.get("kind")
    is_known = isinstance(kind, str) and kind in PARTS
    if not is_known and (kind := _may_be(kind, tree.get("apiVersion"))) is None:
        return None
    meta = tree.get("metadata")
    name = _name(meta, "name", "")
    namespace = "" if kind in WITHOUT_NAMESPACE else _name(meta, "namespace", DEFAULT_NAMESPACE)
    if not is_known:
        complaint = "not a kind"
    elif tree.get("apiVersion") not in API_VERSIONS[kind]:
        complaint = "not an apiVersion of this kind"
    elif not name or namespace is None:
        complaint = "name or namespace"
    else:
        complaint = metadata(meta) or _body(kind, tree)
        key = (kind, namespace, name)
        return Found(key, tree, complaint, said=key)
    if kind not in POLICIES:
        return None
    key = (kind, namespace or DEFAULT_NAMESPACE, name or f"unnamed {place}")
    unplaced = meta["namespace"] if namespace is None else None
    return Found(key, tree, complaint, is_guess=True, unplaced=unplaced, said=key)


def _may_be(kind: Any, version: Any) -> str | None:
    """Kind of policy that somebody may have meant, of the group that has no others like them."""
    if not isinstance(version, str) or not re.fullmatch(r"security\.istio\.io/[^/]*", version):
        return None
    if not isinstance(kind, str) or kind == "":
        return "AuthorizationPolicy"
    return next(iter(difflib.get_close_matches(kind, POLICIES, 1, 0.85)), None)


def _body(kind: str, tree: Tree) -> str:
    known = {"metadata": anything, "apiVersion": anything, "kind": anything, **PARTS[kind]}
    if kind in POLICIES:
        return mapping({**known, "status": anything})(tree)
    return open_mapping(known)(tree)


def _name(meta: Any, field: str, default: str) -> str | None:
    """None for a name that is none; `default` where nothing is said."""
    value = meta.get(field) if isinstance(meta, dict) else None
    if value is None or value == "":
        return default
    good = isinstance(value, str) and re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", value)
    return value if good else None
