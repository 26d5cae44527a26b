"""Objects that somebody has changed beside the tool that owns them, told by their managed fields.

An object has an owner if a GitOps tool, Helm or our own installer applied it; without one it is
anybody's, and nothing is said. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.cli.cluster.session import MANAGER

Object = dict[str, Any]
FIELDS_SHOWN = 3
DEPTH_MAX = 6

# Field managers of owners. Argo CD, Flux, Rancher Fleet, Helm, and our installer.
_OWNERS = re.compile(
    r"argocd.*|kustomize-controller|helm-controller|flux.*|gotk.*|fleet.*|helm|" + MANAGER
)
# Marks that an owner leaves on an object, label or annotation → its name.
_MARKS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "objectset.rio.cattle.io/id": "Fleet",
    "meta.helm.sh/release-name": "Helm",
}
# Parts of the cluster that write what nobody else would.
_SYSTEM = re.compile(
    r"kube-(controller-manager|scheduler|apiserver)|kubelet|cluster-autoscaler|tulle-control|"
    r"openshift-.*|gke-.*|vpa-.*"
)
# Labels and annotations that mean something to the mesh; others are anybody's.
_OURS = re.compile(r"((tulle|istio)\.io|ambient\.istio\.io)/.*")
_PASSED_OVER = frozenset({"spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt"})


def owner_of(value: Object) -> str:
    """The tool that this object belongs to; empty if it is nobody's."""
    meta = value.get("metadata") or {}
    known = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    for mark, name in _MARKS.items():
        if mark in known:
            return name
    found = [str(each.get("manager")) for each in _entries(value)]
    return next((each for each in found if _OWNERS.fullmatch(each)), "")


def changes(value: Object) -> list[str]:
    """Each change beside the owner: fields, who, and when. A field that the owner still has is as
    the owner wants it, whoever else has it."""
    if not owner_of(value):
        return []
    kept, told = set(_PASSED_OVER), []
    for each in _entries(value):
        if _OWNERS.fullmatch(str(each.get("manager"))):
            kept.update(paths(each.get("fieldsV1") or {}))
    for each in _entries(value):
        manager = str(each.get("manager") or "somebody")
        if _OWNERS.fullmatch(manager) or _SYSTEM.fullmatch(manager) or each.get("subresource"):
            continue
        fields = [path for path in paths(each.get("fieldsV1") or {}) if path not in kept]
        if fields:
            more = f" and {len(fields) - FIELDS_SHOWN} more" if len(fields) > FIELDS_SHOWN else ""
            told.append(
                f"{', '.join(fields[:FIELDS_SHOWN])}{more} by {manager}, {each.get('time', '?')}"
            )
    return told


def _entries(value: Object) -> Iterable[Mapping[str, Any]]:
    found = (value.get("metadata") or {}).get("managedFields") or []
    return [each for each in found if isinstance(each, dict)]


def paths(fields: Mapping[str, Any]) -> list[str]:
    """The fields of a managed set that the mesh or the installation is made of."""
    return sorted(set(_paths(fields, ())))


def _paths(fields: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[str]:
    inner = {key[2:]: each for key, each in fields.items() if key.startswith("f:")}
    if at[:1] == ("metadata",):
        if len(at) == 2:
            yield from (".".join((*at, key)) for key in inner if _OURS.fullmatch(key))
        else:
            for key in ("labels", "annotations"):
                yield from _paths(inner.get(key) or {}, (*at, key)) if key in inner else ()
        return
    if not at:
        for key in ("metadata", "spec", "data"):
            if key in inner:
                yield from _paths(inner[key] or {}, (key,))
        return
    if not inner or len(at) >= DEPTH_MAX:
        yield ".".join(at)
        return
    for key, each in inner.items():
        yield from _paths(each or {}, (*at, key))
