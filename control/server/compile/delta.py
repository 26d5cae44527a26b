"""Difference between two states of the mesh, as it is handed to whoever publishes. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.model.intent import Intent, NamespaceIntent
from control.model.policy import Policy
from control.model.workload import Service, Workload


@dataclass(frozen=True, slots=True)
class MeshDelta:
    """Each mapping has only what differs, by the resource's name on the wire; None: it is gone."""

    workloads: Mapping[str, Workload | None] = field(default_factory=dict)
    services: Mapping[str, Service | None] = field(default_factory=dict)
    policies: Mapping[str, Policy | None] = field(default_factory=dict)
    pods: Mapping[str, Intent | None] = field(default_factory=dict)
    namespaces: Mapping[str, NamespaceIntent | None] = field(default_factory=dict)
