"""Regions and zones of nodes, and of endpoints that only say a node or a zone. Pure."""

from __future__ import annotations

from control.model.workload import Locality
from control.server.sources.objects import Labels, NodeObject

_REGION = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
_ZONE = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
_SUBZONE = ("topology.istio.io/subzone",)
_NOWHERE = Locality()


class Localities:
    def __init__(self) -> None:
        self._of_node: dict[str, Locality] = {}
        self._in_zone: dict[str, dict[str, Locality]] = {}  # zone → node →
        self._first: dict[str, Locality] = {}  # zone → that of its first node by name

    def put(self, node: str, value: NodeObject | None) -> bool:
        """True if the place of anything on the node, or in its zone, may be another."""
        before = self._of_node.pop(node, None)
        after = None if value is None else _locality(value.meta.labels)
        if after is not None:
            self._of_node[node] = after
        if before == after:
            return False
        if before is not None:
            del self._in_zone[before.zone][node]
        if after is not None:
            self._in_zone.setdefault(after.zone, {})[node] = after
        for zone in {each.zone for each in (before, after) if each is not None}:
            several = self._in_zone[zone]
            if several:
                self._first[zone] = several[min(several)]
            else:
                del self._in_zone[zone], self._first[zone]
        return True

    def of(self, node: str) -> Locality:
        return self._of_node.get(node, _NOWHERE)

    def near(self, node: str, zone: str) -> Locality:
        """Locality of a node, or what is known of the zone."""
        return self._of_node.get(node) or self._first.get(zone) or Locality(zone=zone)


def _locality(labels: Labels) -> Locality:
    return Locality(
        first_label(labels, _REGION), first_label(labels, _ZONE), first_label(labels, _SUBZONE)
    )


def first_label(labels: Labels, names: tuple[str, ...]) -> str:
    """The first of these labels that is there."""
    return next((labels[name] for name in names if labels.get(name)), "")
