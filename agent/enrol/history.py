"""The state of each pod as it was last shown, and since when; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from agent.enrol import plan
from agent.enrol.plan import NodeFacts, PodFacts, PodState


class History:
    def __init__(self) -> None:
        self._stale: dict[str, None] = {}  # uids whose state may have changed, in that order
        self._shown: dict[str, tuple[PodState, str]] = {}
        self._since: dict[str, datetime] = {}

    def touched(self, uids: Iterable[str]) -> None:
        self._stale.update(dict.fromkeys(uids))

    def forgotten(self, uid: str) -> None:
        self._stale.pop(uid, None)
        self._shown.pop(uid, None)
        self._since.pop(uid, None)

    def observe(
        self, pods: Mapping[str, PodFacts], node: NodeFacts, now: datetime
    ) -> list[tuple[str, PodState, str]]:
        """(uid, state, reason) of every state that has changed since the last call."""
        changed = []
        for uid in self._stale:
            current = plan.state(pods[uid], node)
            if self._shown.get(uid) != current:
                self._shown[uid], self._since[uid] = current, now
                changed.append((uid, *current))
        self._stale.clear()
        return changed

    def since(self, uid: str) -> datetime | None:
        """The moment of the last change; None: never observed."""
        return self._since.get(uid)
