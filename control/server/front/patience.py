"""Time that a client may take for its next step; time in which it waits for us does not count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from control.server.callers.refusals import CallRefusal


class ClientPatience:
    """`ran_out` is called with the step's reason, once."""

    def __init__(self, ran_out: Callable[[CallRefusal], None]) -> None:
        self._ran_out = ran_out
        self._why: CallRefusal | None = None
        self._left_s = self._since_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, why: CallRefusal, seconds: float) -> None:
        """A step that the client has to take; it takes the place of the last one."""
        self.stop()
        self._why, self._left_s = why, seconds
        self.go_on()

    def stop(self) -> None:
        """The client waits for us."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left_s -= asyncio.get_running_loop().time() - self._since_s

    def go_on(self) -> None:
        """We wait for the client."""
        if self._why is not None and self._timer is None:
            loop = asyncio.get_running_loop()
            self._since_s = loop.time()
            self._timer = loop.call_later(self._left_s, self._ran_out, self._why)

    def end(self) -> None:
        """Nothing is expected any more."""
        self.stop()
        self._why = None
