"""The TLS contexts of this node's identities, and the connections that wait for one; issues and
renews nothing.

A renewed certificate replaces the context: tunnels opened later use it, open ones live on with
theirs. So it is when an identity is forgotten: the context lives as long as a handshake or a tunnel
still uses it, and the key with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from control.kit.clock import Clock
from control.kit.errors import ConfigError
from control.model.identity import SpiffeId
from ztunnel.loop.reactor import Reactor
from ztunnel.transport.tls import Material, TlsContext

# A CSR takes milliseconds; a connection that has waited this long is better refused.
WAIT_S: Final = 10.0
# Connections that may wait for certificates in one worker: a burst right after a pod's start.
WAITERS_MAX: Final = 1024

# The last part of a certificate's life, in which its holder has had another for long: a tunnel then
# takes no more new streams. Idle tunnels end within this time.
TURN_S_MAX: Final = 660.0
TURN_PART: Final = 0.1

Ready = Callable[[TlsContext | None], None]


class Term(NamedTuple):
    """The time for which a peer's certificate vouches for a tunnel; by the reactor's clock, which
    nobody sets."""

    turn_s: float  # new streams are to go into another tunnel from here on
    end_s: float


class Waiter:
    __slots__ = ("identity", "ready")

    def __init__(self, identity: SpiffeId, ready: Ready) -> None:
        self.identity = identity
        self.ready = ready

    def on_bug(self) -> None:
        """Nothing to let go of: its deadline comes, or its connection has been closed."""


class Credentials:
    """`ask(identity, waiting)` tells the supervisor that a certificate is needed."""

    def __init__(
        self, reactor: Reactor, clock: Clock, ask: Callable[[SpiffeId, bool], None]
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._ask = ask
        self._contexts: dict[SpiffeId, TlsContext] = {}
        self._waiting: dict[SpiffeId, deque[Waiter]] = {}
        self._deadline = reactor.countdown(WAIT_S, self._give_up)

    def __len__(self) -> int:
        """Identities whose certificate and key are held."""
        return len(self._contexts)

    def put(self, identity: SpiffeId, material: Material) -> None:
        """Take a certificate into use. ConfigError if it is unusable; the last one then stays."""
        try:
            self._contexts[identity] = TlsContext(material)
        except ConfigError:
            self.fail(identity)
            raise
        self._tell(identity, self._contexts[identity])

    def fail(self, identity: SpiffeId) -> None:
        """No new certificate can be had. One that is held is used until peers refuse it."""
        self._tell(identity, self._contexts.get(identity))

    def forget(self, identity: SpiffeId) -> None:
        """The identity's last pod has left the node; a pod that brings it back gets a new
        certificate."""
        self._contexts.pop(identity, None)
        self._tell(identity, None)

    def obtain(self, identity: SpiffeId, ready: Ready) -> None:
        """Call `ready` with the context, now or when it has come; with None if there is none.

        For a certificate that has run out another is asked for; if that fails, peers decide.
        """
        context = self._contexts.get(identity)
        valid = context is not None and self._clock.now().timestamp() < context.not_after_s
        if valid or len(self._deadline) >= WAITERS_MAX:
            ready(context)
            return
        waiter = Waiter(identity, ready)
        self._waiting.setdefault(identity, deque()).append(waiter)
        self._deadline.start(waiter)
        self._ask(identity, True)

    def term(self, not_after_s: float) -> Term:
        """The term of a certificate that was verified just now and ends then, by the wall clock."""
        now_s = self._reactor.now_s
        left_s = max(0.0, not_after_s - self._clock.now().timestamp())
        return Term(now_s + left_s - min(TURN_S_MAX, left_s * TURN_PART), now_s + left_s)

    def _tell(self, identity: SpiffeId, context: TlsContext | None) -> None:
        for waiter in self._waiting.pop(identity, ()):
            self._deadline.stop(waiter)
            self._reactor.serve(waiter, waiter.ready, context)

    def _give_up(self, waiter: Waiter) -> None:
        waiting = self._waiting.get(waiter.identity)
        if waiting is not None:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[waiter.identity]
        waiter.ready(None)
