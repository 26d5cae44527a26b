"""Notes on objects, by what they are about: all of them, and those that are new. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from control.server.sources.objects import Key
from control.server.sources.problem import Problem

Topic = Literal["status", "probe", "host port", "label", "alike", "remark", "waypoint"]
_ORDER: Final[dict[Topic, int]] = {
    "status": 0,
    "probe": 1,
    "host port": 2,
    "label": 3,
    "alike": 4,
    "remark": 5,
    "waypoint": 6,
}


class Notebook:
    def __init__(self) -> None:
        self._notes: dict[tuple[int, Key], Sequence[Problem]] = {}
        self._new: dict[Problem, None] = {}
        self._all: tuple[Problem, ...] | None = ()

    def put(self, topic: Topic, key: Key, notes: Sequence[Problem]) -> None:
        """In place of what was noted about this before."""
        place = _ORDER[topic], key
        before = self._notes.get(place, ())
        if (not before and not notes) or list(before) == list(notes):
            return
        self._all = None
        for each in before:
            self._new.pop(each, None)
        if notes:
            self._notes[place] = notes
            self._new.update(dict.fromkeys(each for each in notes if each not in before))
        else:
            del self._notes[place]

    def all(self) -> tuple[Problem, ...]:
        """In one order."""
        if self._all is None:
            self._all = tuple(each for at in sorted(self._notes) for each in self._notes[at])
        return self._all

    def take_new(self) -> list[Problem]:
        """Those that were not there when this was asked last."""
        new, self._new = list(self._new), {}
        return new
