"""Endpoints that did not answer a pod lately: others of their service are preferred for a while.

Until Kubernetes marks a dead node, half a minute or more, its endpoints are drawn as before, and
each connection to one waits. Here the first ones wait; then one connection tries from time to time.
A doubt is the pod's own: a NetworkPolicy may close an endpoint to one pod alone. It takes nobody
away: where there is no other endpoint, a doubted one is dialled. No I/O.
"""

from __future__ import annotations

from typing import Final

# Pauses between two tries of an endpoint.
PAUSE_S: Final = 5.0
PAUSE_S_MAX: Final = 30.0
# Endpoints of one pod, at some 200 bytes each. Beyond this the oldest is forgotten, and tried.
DOUBTS_MAX: Final = 64


class Suspicion:
    __slots__ = ("pause_s", "until_s")

    def __init__(self, now_s: float) -> None:
        self.pause_s = PAUSE_S
        self.until_s = now_s + PAUSE_S

    def go_on(self, now_s: float) -> None:
        """Another pause, and a longer one."""
        self.pause_s = min(self.pause_s * 2, PAUSE_S_MAX)
        self.until_s = now_s + self.pause_s


class Doubts:
    """By the workload's uid."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: dict[str, Suspicion] = {}

    def raised(self, uid: str, now_s: float) -> None:
        """It has not answered; many connections may find that out at once."""
        known = self.held.get(uid)
        if known is not None:
            if now_s >= known.until_s:
                known.go_on(now_s)
            return
        if len(self.held) >= DOUBTS_MAX:
            del self.held[next(iter(self.held))]
        self.held[uid] = Suspicion(now_s)

    def settled(self, uid: str) -> None:
        """It answers."""
        self.held.pop(uid, None)

    def avoids(self, uid: str, now_s: float) -> bool:
        """True if a connection had better go elsewhere. After a pause the one that asks is to try,
        and the next ones are not."""
        known = self.held.get(uid)
        if known is None:
            return False
        if now_s < known.until_s:
            return True
        known.go_on(now_s)
        return False
