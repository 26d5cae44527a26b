"""Finds all replicas of the control plane by their pods: agents are told with each answer.

A name would say the same, but a cluster's DNS starts after its agents, and may be away. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Final

from control.model.address import Address
from control.server.sources.objects import Labels, PodObject

LABELS: Final[Labels] = {  # as the chart's selectors have it
    "app.kubernetes.io/name": "tulle-control",
    "app.kubernetes.io/part-of": "tulle",
}
ADDRESSES_MAX: Final = 64  # as the wire has it


def replica_addresses(pods: Iterable[PodObject]) -> tuple[Address, ...]:
    """One address of each replica before a second one of any. One that is not ready is told as
    well, before others ask it."""
    of_each = [pod.addresses for pod in sorted(pods, key=lambda pod: pod.meta.name)]
    found = dict.fromkeys(each for each in chain(*zip_longest(*of_each)) if each is not None)
    return tuple(found)[:ADDRESSES_MAX]
