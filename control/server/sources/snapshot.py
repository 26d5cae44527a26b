"""Word of a source: what has changed, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.server.sources.inventory import Changed, Inventory
from control.server.sources.objects import Objects
from control.server.sources.problem import Problem


@dataclass(slots=True)
class Snapshot:
    """`changed` is what differs from the snapshot before; all there is if `is_whole`, so that what
    it does not name is gone. `inventory` has everything, and moves on with its source. `doubt`: why
    this may be an accident and not what somebody wants, in words."""

    inventory: Inventory
    changed: Changed
    problems: tuple[Problem, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    doubt: str = ""
    is_whole: bool = False
    _objects: Objects | None = None

    @property
    def objects(self) -> Objects:
        """Everything, as it was when this was first asked for: at once, or it is of later."""
        if self._objects is None:
            self._objects = self.inventory.objects()
        return self._objects

    def counts(self) -> dict[str, int]:
        return self.inventory.counts()
