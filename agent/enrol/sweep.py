"""A look now and then for namespaces and ztunnels that vanished silently, and for pods that are in
use; decides no order."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from agent import registry
from agent.datapath import cgroups
from agent.enrol import ztunnel_cgroup
from agent.enrol.facts import Facts
from agent.enrol.kernel_track import Datapath
from agent.enrol.uses import Uses
from control.kit.errors import KernelError
from control.kit.log import event

log = logging.getLogger("enrol")

SWEEP_S = 2.0  # a pod whose namespace vanished silently is released within this time
_SWEEP_BATCH = 32  # pods looked at in one turn: 2 ms at most, in which nothing else is served


class Sweep:
    def __init__(self, facts: Facts, datapath: Datapath, cgroup_root: Path, node: str) -> None:
        self._facts = facts
        self._datapath = datapath
        self._cgroup_root = cgroup_root
        self._node = node
        self.uses = Uses(facts)
        self._stamps: dict[str, registry.Stamp] = {}  # by uid, as the last sweep found them
        # Cgroups of ztunnels, an earlier run's included.
        self._exempted = set(ztunnel_cgroup.leftovers(cgroup_root, node))

    def exempted(self, cgroup: Path) -> None:
        """A ztunnel is in this cgroup: end its exemption once the cgroup is empty."""
        self._exempted.add(cgroup)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        missing, stamps = [], {}
        for number, registration in enumerate(self._facts.known, start=1):
            pod = self._facts.book.pods().get(registration.uid)
            if pod is not None and pod.netns is not None:
                found = registry.stamp(registration, self._stamps.get(registration.uid))
                if found is None:
                    missing.append(registration)
                else:
                    stamps[registration.uid] = found
            if number % _SWEEP_BATCH == 0:
                await asyncio.sleep(0)
        self._stamps = stamps
        # Some may have been registered again while we looked at the others.
        self._facts.vanished(*(e for e in missing if self._facts.known.get(e.uid) == e))
        self._facts.known.save()
        self._sweep_cgroups()
        self.uses.look()
        self._facts.news()

    def _sweep_cgroups(self) -> None:
        """End the exemption of ztunnels without a process; one that lives may be draining."""
        live = {ztunnel.pid for ztunnel in self._facts.ztunnels.values()}
        for folder in sorted(self._exempted):
            if not ztunnel_cgroup.is_over(folder) or live & _members(folder):
                continue
            try:
                self._datapath.unexempt(folder)
                ztunnel_cgroup.remove(self._cgroup_root, self._node, folder)
            except (KernelError, OSError) as exc:
                event(log, logging.WARNING, "cgroup.not_unexempted", cgroup=folder, error=exc)
                continue  # it is empty; the next sweep tries again
            self._exempted.discard(folder)


def _members(folder: Path) -> set[int]:
    try:
        return cgroups.members(folder)
    except OSError:
        return set()
