"""Pods that have connections: a ztunnel that starts gets these first; decides no order of steps.

After a crash nothing shows any more which pods had some, so a few are looked at now and then. Most
connections are short: so those count too that came and went since the last look.
"""

from __future__ import annotations

from collections import deque

from agent import registry
from agent.datapath import sockets
from agent.enrol.facts import Facts
from agent.registry import Registration
from control.kit.errors import MeshError

# Pods that are looked at in one turn, 0.2 ms each: 200 of them within 26 s.
PODS_PER_TURN = 16


class Uses:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._waiting: deque[str] = deque()
        self._used: dict[str, None] = {}  # uids, those seen in use last at the end
        self._made: dict[str, int] = {}  # connections that were ever made, by uid, at the last look

    def look(self) -> None:
        """Look at the next pods, all of them in turn."""
        captured = self._facts.book.report()
        if not self._waiting:
            self._waiting.extend(captured)
            self._used = {uid: None for uid in self._used if uid in captured}
            self._made = {uid: made for uid, made in self._made.items() if uid in captured}
        for _ in range(min(PODS_PER_TURN, len(self._waiting))):
            uid = self._waiting.popleft()
            registration = self._facts.known.get(uid)
            if registration is not None and self._is_used(registration):
                self._used.pop(uid, None)
                self._used[uid] = None

    def latest(self) -> list[str]:
        """Uids of pods that had connections, those that had some lately first."""
        return list(reversed(self._used))

    def _is_used(self, registration: Registration) -> bool:
        """True if a connection is open, or was made since the last look; one inside the pod counts
        too."""
        try:
            with registry.opened_again(registration) as netns_fd:
                found = sockets.counted(netns_fd)
        except (MeshError, OSError):
            return False  # it is gone, or about to be found so
        before = self._made.get(registration.uid)
        self._made[registration.uid] = found.made
        return found.established > 0 or (before is not None and before != found.made)
