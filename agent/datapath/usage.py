"""Counters and fill levels of the kernel half; changes nothing."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from agent.datapath import maps
from agent.datapath.maps import Map
from agent.datapath.tables import DirectTables
from bpf import layout


@dataclass(frozen=True, slots=True)
class MapUsage:
    """Entries of a map, or bytes of a ring."""

    name: str
    used: int
    max: int
    drops: int = 0  # records without room; a map that forgets its oldest entry counts none


def counters(opened: Mapping[str, Map]) -> dict[str, int]:
    """The programs' counters by name, summed over the processors."""
    cpus = maps.cpu_count_possible()
    totals = {}
    for counter in layout.Counter:
        raw = opened["counters"].lookup(struct.pack("=I", counter), 8 * cpus) or bytes(8)
        totals[counter.name.lower()] = sum(struct.unpack(f"={len(raw) // 8}Q", raw))
    return totals


def of_maps(opened: Mapping[str, Map], direct: DirectTables | None) -> list[MapUsage]:
    """The fill level of every map that can run full, and of the ring."""
    found = [
        MapUsage(name, each.count(), layout.MAPS[name].max_entries)
        for name, each in opened.items()
        if layout.MAPS[name].countable
    ]
    if direct is not None:
        lost = counters(opened)["flow_lost"]
        found.append(MapUsage("flows", direct.unread_bytes(), opened["flows"].max_entries, lost))
    return found
