"""One system in one topology: client, server, address, and the cgroups of its proxies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import meter
from tests.bench.bed import Bed
from tests.bench.manifests import (
    BULK,
    ECHO,
    FOREIGN,
    HTTP,
    MESH,
    NODE_A,
    NODE_B,
    NODE_C,
    NODE_D,
    PLAIN,
)
from tests.bench.model import System, Topology
from ztunnel.compiled import COMPILED

Place = tuple[str, int]
_PLACES = {
    System.TULLE: (MESH, (NODE_A, NODE_B)),
    System.ZTUNNEL: (FOREIGN, (NODE_C, NODE_D)),
}
Sides = dict[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    system: System
    topology: Topology
    client: str  # the client's pod
    http: Place
    bulk: Place
    echo: Place
    # "out", "in" or "both" -> the cgroup of its proxy, then those of its helpers.
    sides: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.http[0]}:{self.http[1]}/"

    def cpu_s(self) -> Sides:
        return {side: sum(map(meter.cgroup_cpu_s, groups)) for side, groups in self.sides.items()}

    def rss_mib(self) -> Sides:
        """CPU time of the proxy's process, and of the rest where it has a supervisor."""
        found: Sides = {}
        for side, groups in self.sides.items():
            sizes = [meter.rss_mib(pid) for pid in meter.members(groups[0])]
            found[f"rss_{side}_mib"] = sum(sizes)
            if self.system is System.TULLE:
                found[f"worker_rss_{side}_mib"] = sum(sizes[1:])
        return found


def server_of(topology: Topology) -> str:
    return "server" if topology is Topology.CROSS else "near"


def direct_target(bed: Bed, system: System, topology: Topology) -> Target:
    """Target for systems whose address an application just dials: no mesh, and meshes."""
    where, nodes = _PLACES.get(system, (PLAIN, None))
    host = bed.address(f"{where}/{server_of(topology)}")
    sides: dict[str, tuple[Path, ...]] = {}
    if nodes is not None and topology is Topology.CROSS:
        sides = {"out": bed.mesh(nodes[0]), "in": bed.mesh(nodes[1])}
    elif nodes is not None:
        sides = {"both": bed.mesh(nodes[0])}
    return Target(
        system, topology, f"{where}/client", (host, HTTP), (host, BULK), (host, ECHO), sides
    )


def difference(later: Sides, earlier: Sides) -> Sides:
    return {side: value - earlier[side] for side, value in later.items()}


def machine() -> dict[str, str]:
    """Facts about this machine that a reader needs to judge the figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "kernel": os.uname().release,
        "compiled": COMPILED,
    }
