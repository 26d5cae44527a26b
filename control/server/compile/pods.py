"""Decides for each pod whether its traffic is captured and may go direct inside its node.

Every answer has a reason that people can read.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from functools import lru_cache

from control.model.intent import Intent
from control.server.compile.settings import Settings
from control.server.sources import objects
from control.server.sources.objects import Labels
from control.server.sources.problem import Problem

UIDS_KEPT_MAX = 16384  # some 3 MiB; a cluster gives every pod a uid, and keeps none here

MODE_LABELS = ("tulle.io/dataplane-mode", "istio.io/dataplane-mode")
# `tunnel` on a pod or on its namespace. Any other value but `direct` counts as `tunnel`: people set
# this label to get less of the direct path, not more.
PATH_LABEL = "tulle.io/path"
REDIRECTION_ANNOTATION = "ambient.istio.io/redirection"
SIDECAR_ANNOTATION = "sidecar.istio.io/status"
PROBE_UNRECOGNISED = "probe_unrecognised"
# The cluster lives here: a label on the whole namespace does not count.
SYSTEM_NAMESPACES = frozenset({"kube-system"})
# On the API server's copy of a static pod: its uid at the node, by which the runtime knows it. The
# copy's own uid is another one, of another form.
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_NOTHING = (None, None)  # nearly always; a start asks two times for each pod
_STATIC_UID = re.compile(r"[0-9a-f]{32}")
# UUID namespace for pods whose manifest has no uid: the same pod gets the same uid every time.
_UID_SPACE = uuid.UUID("6f7a3c0e-5d0b-5f0c-9b53-7d1f4a3f2c11")


def pod_uid(meta: objects.Meta) -> str:
    """The uid by which the pod's node knows it."""
    if MIRROR_ANNOTATION in meta.annotations and (found := _static_uid(meta)):
        return found
    return meta.uid or _made_uid(meta.namespace, meta.name)


def _static_uid(meta: objects.Meta) -> str:
    found = meta.annotations.get(MIRROR_ANNOTATION, "")
    return found if _STATIC_UID.fullmatch(found) else ""


def unmirrored(pod: objects.PodObject) -> objects.PodObject:
    """The pod, if it is not the mirror that it calls itself: whoever may make pods may call one so
    until the kubelet removes it."""
    left = {name: text for name, text in pod.meta.annotations.items() if name != MIRROR_ANNOTATION}
    return replace(pod, meta=replace(pod.meta, annotations=left))


@lru_cache(maxsize=UIDS_KEPT_MAX)
def _made_uid(namespace: str, name: str) -> str:
    return str(uuid.uuid5(_UID_SPACE, f"{namespace}/{name}"))


def is_captured(pod: objects.PodObject, reported: bool) -> bool:
    """`reported`: its node says that the capture is in force."""
    annotated = pod.meta.annotations.get(REDIRECTION_ANNOTATION) == "enabled"
    return not pod.host_network and (annotated or reported)


def probe_notes(pod: objects.PodObject) -> list[Problem]:
    """Probes that the kernel cannot recognise, of an enrolled pod."""
    meta, found = pod.meta, pod.probes.notes
    where = str(meta.key) if found else ""
    return [Problem(meta.file, meta.line, where, PROBE_UNRECOGNISED, said) for said in found]


def namespace_enrols(meta: objects.Meta, settings: Settings) -> bool:
    is_system = meta.name in SYSTEM_NAMESPACES or meta.name == settings.root_namespace
    return not is_system and _mode(meta.labels) == "ambient"


@dataclass(frozen=True, slots=True)
class NamespaceWord:
    """All that the intents of a namespace's pods take from it."""

    mode: str = ""
    says_tunnel: bool = False


def word_of(namespace: objects.Meta | None) -> NamespaceWord:
    """None: a namespace that nobody has written down."""
    if namespace is None:
        return NamespaceWord()
    return NamespaceWord(_mode(namespace.labels), _says_tunnel(namespace))


def intent_of(
    pod: objects.PodObject,
    uid: str,
    word: NamespaceWord,
    settings: Settings,
    is_waypoint: bool = False,
) -> Intent:
    """`word`: that of the pod's namespace."""
    meta = pod.meta
    enrolled, reason = _decide(pod, word, settings)
    if is_waypoint:
        enrolled, reason = False, "waypoint"  # it takes its port itself
    kept = _kept_in_tunnel(meta, word, settings)
    return Intent(
        uid=uid,
        name=meta.name,
        namespace=meta.namespace,
        service_account=pod.service_account,
        node=pod.node,
        # The node hears what the object says, or it could never follow it to a new address.
        addresses=pod.stated_addresses if pod.is_placed_by_node else pod.addresses,
        enrolled=enrolled,
        reason=reason,
        direct=not kept,
        direct_reason=kept,
        probe_ports=pod.probes.ports if enrolled else (),
    )


def _kept_in_tunnel(meta: objects.Meta, word: NamespaceWord, settings: Settings) -> str:
    """Reason to keep this pod's connections inside its node in the tunnel; empty if none."""
    if settings.always_tunnel:
        return "mesh always-tunnel"
    if _says_tunnel(meta):
        return f"pod {PATH_LABEL}"
    if word.says_tunnel:
        return f"namespace {PATH_LABEL}"
    return ""


def _says_tunnel(meta: objects.Meta) -> bool:
    """True if a label or an annotation asks for the tunnel."""
    said = (meta.labels.get(PATH_LABEL), meta.annotations.get(PATH_LABEL))
    return said != _NOTHING and any(value not in (None, "", "direct") for value in said)


def _decide(pod: objects.PodObject, word: NamespaceWord, settings: Settings) -> tuple[bool, str]:
    if settings.release_all and not settings.keeps_pods:
        return False, "mesh release-all"
    if pod.host_network:
        return False, "host network"
    if SIDECAR_ANNOTATION in pod.meta.annotations:
        return False, "sidecar"
    match _mode(pod.meta.labels):
        case "none":
            return False, "pod label none"
        case "ambient":
            return True, "pod label ambient"
    if pod.meta.namespace in SYSTEM_NAMESPACES or pod.meta.namespace == settings.root_namespace:
        return False, "system namespace"
    match word.mode:
        case "ambient":
            return True, "namespace label ambient"
        case "none":
            return False, "namespace label none"
        case _:
            return False, "no label"


def _mode(labels: Labels) -> str:
    """Mode that the labels ask for: `none` under either name wins over `ambient`."""
    first, second = MODE_LABELS
    values = labels.get(first), labels.get(second)
    if values == _NOTHING:
        return ""
    return next((mode for mode in ("none", "ambient") if mode in values), "")
