"""The end of a worker, in two parts, neither of which breaks a connection before its deadline.

First it *leaves*: it serves as before, and tells peers to open their tunnels anew, which leads them
to the ztunnel that came after this one, if there is one. Then it *drains*: it takes what waits in
its listeners, closes them, and waits for what is open, until a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.connections.engine import Engine
from ztunnel.transport.ends import RelayEnd, TunnelEnd

TICK_S: Final = 0.05


def is_idle(engine: Engine) -> bool:
    """True if nothing is open, on its way in, or waiting for the control plane's word."""
    waiting = len(engine.newcomers) + len(engine.callers)
    return not (engine.connections or waiting or _handshakes(engine))


def _handshakes(engine: Engine) -> bool:
    return any(tunnel.peer is None for pod in engine.pods.values() for tunnel in pod.tunnels)


def _say_goodbye(engine: Engine) -> None:
    """A tunnel in its handshake is left alone: its peer has a stream for it."""
    for pod in engine.pods.values():
        for tunnel in list(pod.tunnels):
            if tunnel.peer is not None:
                tunnel.drain()


class Leave:
    """Calls `tell` with True when nothing is open, and with False when something is again."""

    def __init__(self, engine: Engine, tell: Callable[[bool], None]) -> None:
        self._engine = engine
        self._tell = tell
        self._told: bool | None = None
        self._ticks = engine.reactor.countdown(TICK_S, Leave._on_tick)

    def begin(self) -> None:
        _say_goodbye(self._engine)
        self._ticks.start(self)

    def _on_tick(self) -> None:
        idle = is_idle(self._engine)
        if idle is not self._told:
            self._told = idle
            self._tell(idle)
        self._ticks.start(self)

    def end(self) -> None:
        self._ticks.stop(self)

    def on_bug(self) -> None:
        """Go on: the deadline is the supervisor's."""
        self._ticks.start(self)


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
            for listener in pod.listeners:
                listener.take_rest()
            pod.stop_listening()
        self._engine.pool.drain()
        self._deadline.start(self)
        self._on_tick(first=True)

    def _on_tick(self, *, first: bool = False) -> None:
        _say_goodbye(self._engine)
        if is_idle(self._engine) and not first:
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
