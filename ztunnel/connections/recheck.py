"""A look at the open inbound connections after a change: all of them, or those of some pods; some
each turn.

`authorize` decides; a connection that may not stay open ends itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from ztunnel.connections.engine import Engine
from ztunnel.connections.pod import OpenConnection, Pod
from ztunnel.mesh.state import Changed
from ztunnel.transport.ends import RelayEnd

# They take about a millisecond.
RECHECKS_PER_TURN_MAX: Final = 64


class Recheck:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._left: Iterator[tuple[Pod, OpenConnection]] | None = None
        self._next: dict[Pod, None] = {}  # pods for the round after this one

    def after(self, changed: Changed) -> None:
        """Look at the connections that a change may concern."""
        pods = self._engine.pods.values()
        if changed.policies:
            self.begin(pods)
        elif changed.claims:
            self.begin(pod for pod in pods if pod.claim in changed.claims)

    def begin(self, pods: Iterable[Pod]) -> None:
        """Begin a round. One that is under way goes on with the newest state, then another follows:
        a state that changes in each turn must not keep it from its end."""
        self._next.update(dict.fromkeys(pods))
        if self._left is None:
            self._start()

    def _start(self) -> None:
        if self._next:
            pods, self._next = self._next, {}
            self._left = iter([(pod, each) for pod in pods for each in pod.inbound])
            self._engine.reactor.again(self)

    def on_again(self) -> None:
        looked_at = 0
        for pod, connection in islice(self._left or (), RECHECKS_PER_TURN_MAX):
            workload = pod.workload(self._engine.state)
            self._engine.reactor.serve(connection, connection.recheck, workload)
            looked_at += 1
        if looked_at == RECHECKS_PER_TURN_MAX:
            self._engine.reactor.again(self)
            return
        self._left = None
        self._start()

    def on_bug(self) -> None:
        """Fail closed: a connection that cannot be checked cannot stay open."""
        self._left = None
        for pod in list(self._engine.pods.values()):
            for connection in list(pod.inbound):
                self._engine.reactor.serve(connection, connection.abort, RelayEnd.POLICY)
