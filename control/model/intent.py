"""Intents of the control plane: which pods are captured, and why; namespaces that may have such."""

from __future__ import annotations

from dataclasses import dataclass

from control.model.address import Address

# Ports of one pod for the kubelet. A container has three probes and two hooks: twelve containers.
PROBE_PORTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Intent:
    """Answer for one pod of one node. Reasons are for people; no program reads them."""

    uid: str
    name: str
    namespace: str
    service_account: str
    node: str
    addresses: tuple[Address, ...]
    enrolled: bool
    reason: str
    direct: bool = False  # the kernel may carry its connections inside the node
    direct_reason: str = ""
    probe_ports: tuple[int, ...] = ()  # where the kubelet may come without an identity


@dataclass(frozen=True, slots=True)
class NamespaceIntent:
    """Answer for a namespace, where there is none for a pod yet."""

    name: str
    enrols: bool  # a pod of it may be captured
