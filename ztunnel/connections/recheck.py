"""A look at every open inbound connection after a policy change, some each turn.

`authorize` decides; a connection that may not stay open ends itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from ztunnel.connections.engine import Engine
from ztunnel.connections.pod import OpenConnection, Pod
from ztunnel.transport.ends import RelayEnd

# They take about a millisecond.
RECHECKS_PER_TURN_MAX: Final = 64


class Recheck:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._left: Iterator[tuple[Pod, OpenConnection]] | None = None
        self._once_more = False

    def begin(self) -> None:
        """Begin a round. One that is under way goes on with the newest policies, then another
        follows: policies that change in each turn must not keep it from its end."""
        if self._left is not None:
            self._once_more = True
            return
        pods = list(self._engine.pods.values())
        self._left = iter([(pod, each) for pod in pods for each in pod.inbound])
        self._once_more = False
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
        if self._once_more:
            self.begin()

    def on_bug(self) -> None:
        """Fail closed: a connection that cannot be checked cannot stay open."""
        self._left = None
        for pod in list(self._engine.pods.values()):
            for connection in list(pod.inbound):
                self._engine.reactor.serve(connection, connection.abort, RelayEnd.POLICY)
