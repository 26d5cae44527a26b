"""Names of addresses that this node asks the control plane for: whose they are, and which may go.
No I/O.

Each name belongs to the pod that asked first, and counts towards its share, whoever uses it later.
A pod with a full share gives back its own names, those that nobody used for the longest time. So a
pod that dials every address neither evicts what others talk to nor fills the control
plane, which looks at all names of a node at each change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

NAMES_MAX: Final = 8192  # on a node
SHARE_MAX: Final = 2048  # a pod
# New names of one pod: a scraper of thousands of targets has them all within some seconds.
RATE_PER_S: Final = 200.0
BURST: Final = 400.0
QUEUE_MAX: Final = 256  # a pod's names that wait for their turn
# Unused for so long, a name is given back. Nobody has most of those that lead nowhere for long.
LIFE_S: Final = 600.0
NOWHERE_LIFE_S: Final = 60.0
# No name goes earlier, however full it is: its use may not have been reported yet.
FRESH_S: Final = 10.0
FULL_S: Final = 1.0  # a pod without a name that may go is not looked at again for so long
GIVEN_BACK_PART: Final = 8  # an eighth of a full share goes at once

NOBODY: Final = ""


class Stage(Enum):
    QUEUED = "queued"  # its pod has asked for too many of late
    ASKED = "asked"
    ANSWERED = "answered"
    LEAVING = "leaving"  # the workers are being told that it is unknown again


@dataclass(slots=True)
class _Name:
    pod: str
    stage: Stage
    used_s: float
    leads_somewhere: bool = False


@dataclass(slots=True)
class _PodNames:
    room: float = BURST
    filled_s: float = 0.0
    names: int = 0
    full_until_s: float = 0.0
    queue: deque[str] = field(default_factory=deque)


@dataclass(slots=True)
class Wanted:
    """Names to ask for now, names to give back for them, names that are refused."""

    ask: list[str] = field(default_factory=list)
    give_back: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class NameBook:
    def __init__(self, names_max: int = NAMES_MAX, share_max: int = SHARE_MAX) -> None:
        self._names_max = names_max
        self._share_max = share_max
        self._names: dict[str, _Name] = {}
        self._pods: dict[str, _PodNames] = {}
        self._again: dict[str, str] = {}  # names wanted while they leave, and the pod that does

    def __len__(self) -> int:
        return len(self._names)

    def answered(self, name: str) -> bool:
        known = self._names.get(name)
        return known is not None and known.stage is Stage.ANSWERED

    def want(self, pod: str, names: Iterable[str], now_s: float, *, spare: bool = False) -> Wanted:
        """Decide about names that a pod needs. `spare`: nobody waits for them, so they are asked
        for only where there is room."""
        found = Wanted()
        for name in names:
            known = self._names.get(name)
            if known is None or known.stage is Stage.QUEUED:
                self._want_new(pod, name, known, now_s, spare, found)
            elif known.stage is Stage.LEAVING and not spare:
                self._again[name] = pod
        return found

    def _want_new(
        self, pod: str, name: str, known: _Name | None, now_s: float, spare: bool, found: Wanted
    ) -> None:
        mine = self._refilled(pod, now_s)
        if known is not None:
            if known.pod != pod and not spare and mine.room >= 1.0:
                self._ask(name, known, mine, found)  # it need not wait in the other's queue
            return
        is_late = mine.room < 1.0
        if is_late and (spare or len(mine.queue) >= QUEUE_MAX):
            has_room = False
        else:
            has_room = self._has_room(pod, mine, now_s, spare, found)
        if not has_room:
            if not spare:
                found.refused.append(name)
            return
        made = self._names[name] = _Name(pod, Stage.QUEUED, now_s)
        mine.names += 1
        if is_late:
            mine.queue.append(name)
        else:
            self._ask(name, made, mine, found)

    def _ask(self, name: str, known: _Name, payer: _PodNames, found: Wanted) -> None:
        payer.room -= 1.0
        known.stage = Stage.ASKED
        found.ask.append(name)

    def _refilled(self, pod: str, now_s: float) -> _PodNames:
        mine = self._pods.get(pod)
        if mine is None:
            mine = self._pods[pod] = _PodNames(filled_s=now_s)
        mine.room = min(BURST, mine.room + RATE_PER_S * (now_s - mine.filled_s))
        mine.filled_s = now_s
        return mine

    def _has_room(
        self, pod: str, mine: _PodNames, now_s: float, spare: bool, found: Wanted
    ) -> bool:
        if mine.names < self._share_max and len(self._names) < self._names_max:
            return True
        if spare or now_s < mine.full_until_s:
            return False
        # Where the node is full, whoever has most pays.
        payer = pod
        if mine.names < self._share_max:
            payer = max(self._pods, key=lambda each: self._pods[each].names)
        gone = self._oldest(payer, now_s)
        found.give_back += gone
        if not gone:
            mine.full_until_s = now_s + FULL_S  # a look at all names is not for each connection
        return bool(gone)

    def _oldest(self, pod: str, now_s: float) -> list[str]:
        """Names of a pod that make room for others, longest unused first. They leave."""
        old = [
            (each.used_s, name)
            for name, each in self._names.items()
            if each.pod == pod and each.stage is Stage.ANSWERED and each.used_s <= now_s - FRESH_S
        ]
        old.sort()
        return self._leave(name for _, name in old[: max(1, self._share_max // GIVEN_BACK_PART)])

    def _leave(self, names: Iterable[str]) -> list[str]:
        gone = list(names)
        for name in gone:
            each = self._names[name]
            each.stage = Stage.LEAVING
            self._disown(each)
        return gone

    def _disown(self, each: _Name) -> None:
        owner = self._pods.get(each.pod)
        if owner is not None:
            owner.names -= 1
        each.pod = NOBODY

    def due(self, now_s: float) -> list[str]:
        """Names whose turn has come; their stage is ASKED."""
        found = Wanted()
        for pod in list(self._pods):
            mine = self._refilled(pod, now_s)
            while mine.queue and mine.room >= 1.0:
                name = mine.queue.popleft()
                known = self._names.get(name)
                if known is not None and known.stage is Stage.QUEUED:
                    self._ask(name, known, mine, found)
        return found.ask

    @property
    def has_queued(self) -> bool:
        return any(each.queue for each in self._pods.values())

    def told(self, names: Iterable[str], somewhere: set[str], now_s: float) -> list[str]:
        """The control plane has answered; those of `somewhere` lead to something. Returns the
        names that somebody waits for."""
        heard: list[str] = []
        for name in names:
            known = self._names.get(name)
            if known is not None and known.stage is Stage.ASKED:
                known.stage, known.used_s = Stage.ANSWERED, now_s
                known.leads_somewhere = name in somewhere
                heard.append(name)
        return heard

    def used(self, names: Iterable[str], now_s: float) -> None:
        for name in names:
            known = self._names.get(name)
            if known is not None:
                known.used_s = now_s

    def idle(self, now_s: float) -> list[str]:
        """Names that nobody has used for their life. They leave."""
        return self._leave(
            name
            for name, each in list(self._names.items())
            if each.stage is Stage.ANSWERED
            and now_s - each.used_s >= (LIFE_S if each.leads_somewhere else NOWHERE_LIFE_S)
        )

    def gone(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The workers know that these are unknown. Yields pod and name of those wanted again."""
        for name in names:
            self._names.pop(name, None)
            pod = self._again.pop(name, None)
            if pod is not None:
                yield pod, name

    def keep(self, pods: Collection[str]) -> None:
        """Forget all other pods: they have left. Their names stay as long as others use them."""
        for pod in self._pods.keys() - pods:
            self._forget(pod, self._pods.pop(pod))

    def _forget(self, pod: str, mine: _PodNames) -> None:
        for name in mine.queue:
            known = self._names.get(name)
            if known is not None and known.stage is Stage.QUEUED:
                del self._names[name]
        for each in self._names.values():
            if each.pod == pod:
                each.pod = NOBODY

    def counts(self) -> dict[str, int]:
        """Number of names by stage, for the metrics."""
        found = {each.value: 0 for each in Stage}
        for name in self._names.values():
            found[name.stage.value] += 1
        return found
