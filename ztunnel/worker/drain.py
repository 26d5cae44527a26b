"""A drain: no new connections, and a wait for the open ones that has an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.connections.engine import Engine
from ztunnel.transport.ends import RelayEnd, TunnelEnd

TICK_S: Final = 0.05


class Drain:
    """Calls `done` once: after the last connection, or at the deadline, which cuts what is left."""

    def __init__(self, engine: Engine, deadline_s: float, done: Callable[[], None]) -> None:
        self._engine = engine
        self._done = done
        self._over = False
        self._ticks = engine.reactor.countdown(TICK_S, Drain._on_tick)
        self._deadline = engine.reactor.countdown(deadline_s, Drain._finish)

    def begin(self) -> None:
        for pod in self._engine.pods.values():
            pod.stop_listening()
            for tunnel in list(pod.tunnels):
                tunnel.drain()
        self._engine.pool.drain()
        self._deadline.start(self)
        self._ticks.start(self)

    def _on_tick(self) -> None:
        if self._engine.connections == 0:
            self._finish()
        else:
            self._ticks.start(self)

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self._ticks.stop(self)
        self._deadline.stop(self)
        for pod in list(self._engine.pods.values()):
            for book in (pod.outbound, pod.inbound):
                for connection in list(book):
                    self._engine.reactor.serve(connection, connection.abort, RelayEnd.DRAINED)
            for tunnel in list(pod.tunnels):
                tunnel.close(TunnelEnd.DRAINED)
        self._done()

    def on_bug(self) -> None:
        self._finish()
