"""Fronts and backends by waypoint, and what became of them since they were asked for last. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control.model.identity import SpiffeId
from control.model.route import Backend, Front, Waypoint, WaypointDelta, WaypointKey
from control.server.compile.settings import Settings
from control.server.compile.table import ResourceTable
from control.server.compile.waypoint_labels import account_of


@dataclass(slots=True)
class _Table:
    """`is_told`: somebody knows of the waypoint."""

    account: SpiffeId
    is_there: bool = False
    is_told: bool = False
    fronts: ResourceTable[Front] = field(default_factory=ResourceTable)
    backends: ResourceTable[Backend] = field(default_factory=ResourceTable)
    needed: Counter[str] = field(default_factory=Counter)  # backends, by services that need them


@dataclass(frozen=True, slots=True)
class Shown:
    """Fronts of one service or pod at its waypoint, and the backends that they need."""

    waypoint: WaypointKey
    fronts: Mapping[str, Front]
    backends: frozenset[str]


class WaypointTables:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tables: dict[WaypointKey, _Table] = {}
        self._needed_by: dict[str, set[WaypointKey]] = {}  # backends
        self._stale: set[WaypointKey] = set()

    def put_waypoint(self, key: WaypointKey, is_there: bool) -> None:
        """Its fronts are put, and taken away, as those of its services."""
        self._table(key).is_there = is_there

    def _table(self, key: WaypointKey) -> _Table:
        self._stale.add(key)
        if key not in self._tables:
            self._tables[key] = _Table(account_of(key, self._settings))
        return self._tables[key]

    def put_fronts(self, key: WaypointKey, fronts: Mapping[str, Front | None]) -> None:
        table = self._table(key).fronts
        for name, front in fronts.items():
            table.put(name, front)

    def need(self, key: WaypointKey, before: Iterable[str], after: Iterable[str]) -> list[str]:
        """One service needs other backends than before; those that nobody needed here."""
        table, new = self._table(key), []
        for name in after:
            table.needed[name] += 1
            if table.needed[name] == 1:
                self._needed_by.setdefault(name, set()).add(key)
                new.append(name)
        for name in before:
            table.needed[name] -= 1
            if not table.needed[name]:
                del table.needed[name]
                table.backends.put(name, None)
                self._needed_by[name].discard(key)
                if not self._needed_by[name]:
                    del self._needed_by[name]
        return [name for name in new if name in table.needed]

    def put_backend(self, value: Backend) -> None:
        """For each waypoint that needs it."""
        for key in self._needed_by.get(value.name, ()):
            self._table(key).backends.put(value.name, value)

    def replace(self, before: Shown | None, after: Shown | None) -> list[str]:
        """Show other fronts of one owner than before; backends that their waypoint has not had."""
        new: list[str] = []
        if after is not None:
            self.put_fronts(after.waypoint, after.fronts)
            new = self.need(after.waypoint, (), after.backends)
        if before is not None:
            stays = after is not None and after.waypoint == before.waypoint
            left = after.fronts if after is not None and stays else {}
            gone = dict.fromkeys(before.fronts.keys() - left.keys())
            self.put_fronts(before.waypoint, gone)
            self.need(before.waypoint, before.backends, ())
        return new

    def is_needed(self, backend: str) -> bool:
        return backend in self._needed_by

    def take_delta(self) -> dict[WaypointKey, WaypointDelta]:
        """Waypoints with differences since this was asked last. The mappings in it are good until
        the next change."""
        found: dict[WaypointKey, WaypointDelta] = {}
        stale, self._stale = self._stale, set()
        for key in sorted(stale):
            table = self._tables[key]
            fronts, backends = table.fronts.take_changed(), table.backends.take_changed()
            if not table.is_there:
                if table.is_told:
                    found[key] = WaypointDelta(key, table.account, is_gone=True)
                del self._tables[key]
            elif fronts or backends or not table.is_told:
                table.is_told = True
                found[key] = WaypointDelta(key, table.account, fronts, backends)
        return found

    def waypoints(self) -> dict[WaypointKey, Waypoint]:
        """All that are there, whole; live."""
        return {
            key: Waypoint(key, each.account, each.fronts.current, each.backends.current)
            for key, each in self._tables.items()
            if each.is_there
        }
