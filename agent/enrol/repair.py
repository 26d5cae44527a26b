"""Compares, at the start and now and then, what we believe with what the kernel has; repairs it.

Elsewhere a pod was listed as captured for 29 days while nothing captured it. So belief is checked:
hooks, exemptions, each pod's entries, link and listeners. A difference is repaired at once, counted
by kind and logged. One that the next look finds again is standing, and `tulle check` fails on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from agent import registry
from agent.datapath.audit import TO_CAPTURE, Difference, LostPart
from agent.enrol.facts import Facts
from agent.enrol.kernel_track import Datapath
from control.kit.errors import MeshError
from control.kit.log import event

log = logging.getLogger("enrol")

# A pod takes a third of a millisecond of a processor: 250 of them 0.15 % of one, in pieces.
COMPARE_EVERY_S = 60.0
START_S = 20.0  # by then a ztunnel has handed over its listeners
AGAIN_S = 15.0  # after a difference: was it repaired?
LOGGED_MAX = 20  # lines of one comparison; the count has all
KEPT_MAX = 100


@dataclass(slots=True)
class Compared:
    """Outcome of the comparisons, for status, metrics and checks."""

    at: datetime | None = None
    at_s: float = 0.0  # the same, on the clock that nobody sets
    error: str = ""  # the last one failed
    counts: Counter[LostPart] = field(default_factory=Counter)  # since our start
    last: tuple[Difference, ...] = ()  # found by the last one that found any
    last_at: datetime | None = None
    last_at_s: float = 0.0
    standing: tuple[Difference, ...] = ()  # found twice in a row

    def status(self) -> dict[str, Any]:
        return {
            "compared_at": _text(self.at),
            "error": self.error,
            "differences": {kind.value: count for kind, count in sorted(self.counts.items())},
            "found_at": _text(self.last_at),
            "found": [_line(each) for each in self.last],
            "standing": [_line(each) for each in self.standing],
        }


class Repair:
    def __init__(
        self, facts: Facts, datapath: Datapath, exempted: Callable[[], Iterable[Path]]
    ) -> None:
        """`exempted`: the cgroups of connected ztunnels."""
        self._facts = facts
        self._datapath = datapath
        self._exempted = exempted
        self._before: tuple[Difference, ...] = ()  # found by the last comparison
        self.compared = Compared()

    async def run(self) -> None:
        await asyncio.sleep(START_S)
        while True:
            found = await self.compare()
            await asyncio.sleep(AGAIN_S if found else COMPARE_EVERY_S)

    async def compare(self) -> list[Difference]:
        """One comparison, with the repairs that follow from it."""
        compared = self.compared
        try:
            found = [*self._node(), *await self._pods()]
        except (MeshError, OSError) as exc:
            compared.error = str(exc)
            event(log, logging.ERROR, "kernel.not_compared", error=exc)
            return []
        clock, compared.error = self._facts.clock, ""
        compared.at, compared.at_s = clock.now(), clock.monotonic_s()
        compared.standing = tuple(each for each in found if each in self._before)[:KEPT_MAX]
        self._before = tuple(found[:KEPT_MAX])
        if found:
            compared.last = self._before
            compared.last_at, compared.last_at_s = compared.at, compared.at_s
            self._tell(found)
        return found

    def _tell(self, found: list[Difference]) -> None:
        for each in found:
            self.compared.counts[each.kind] += 1
        for each in found[:LOGGED_MAX]:
            event(
                log,
                logging.ERROR,
                "kernel.difference",
                kind=each.kind.value,
                uid=each.uid,
                what=each.what,
            )
        if len(found) > LOGGED_MAX:
            event(log, logging.ERROR, "kernel.differences", left_out=len(found) - LOGGED_MAX)
        self._facts.news()

    def _node(self) -> list[Difference]:
        found = self._datapath.audit.node()
        strangers = {int(each.what) for each in found if each.kind is LostPart.STRANGER}
        if strangers:
            # An entry whose namespace lives keeps its pod closed, which is the safe side.
            for cookie in strangers - registry.find(strangers).keys():
                self._datapath.forget_entry(cookie)
        for cgroup in self._exempted():
            if cgroup.exists() and not self._datapath.is_exempt(cgroup):
                self._datapath.exempt(cgroup)
                found.append(Difference(LostPart.EXEMPTION, str(cgroup)))
        return found

    async def _pods(self) -> list[Difference]:
        found = []
        for uid in list(self._facts.book.pods()):
            found += self._pod(uid)
            await asyncio.sleep(0)
        return found

    def _pod(self, uid: str) -> list[Difference]:
        """Compared in one piece, so that no step of the pod comes in between."""
        pod = self._facts.book.pods().get(uid)
        if pod is None or pod.capture is None or pod.capture.netns != pod.netns:
            return []
        found = self._datapath.audit.pod(uid)
        if pod.capture.ztunnel not in self._facts.ztunnels:
            # Its listeners went with their ztunnel, or are about to be handed over.
            found = [each for each in found if each.kind is not LostPart.LISTENERS]
        if any(each.kind in TO_CAPTURE for each in found):
            self._facts.book.damaged(uid)
        return found


def _line(difference: Difference) -> str:
    where = f"{difference.uid}: " if difference.uid else ""
    return f"{where}{difference.kind.value} ({difference.what})"


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
