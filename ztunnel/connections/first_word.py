"""Whether an app's clients speak first; decides if the app may hear of a connection a moment later.

The last ACK of a TCP handshake can wait for the first bytes and go with them: one packet less, one
wake-up of the app less, a tenth of a connection's CPU on this side. An app that has something to
say first would wait in vain. So this is done only for ports whose clients have been seen to speak
first, never again once the app was, and after `PATIENCE_S` the ACK goes by itself. It never
touches a socket.
"""

from __future__ import annotations

from typing import Final

# A client of the same zone has spoken by then. An app that now and then speaks first and has not
# done so before hears of its client this much later, once.
PATIENCE_S: Final = 0.005


class FirstWord:
    """What the connections to one port have shown so far."""

    __slots__ = ("_client_first",)

    def __init__(self) -> None:
        self._client_first: bool | None = None  # None: nothing yet

    @property
    def may_wait(self) -> bool:
        """For the next connection: its handshake may end with the client's first bytes."""
        return self._client_first is True

    def seen(self, app_first: bool, client_spoke: bool) -> None:
        """Of a connection, at its end at the latest. That nobody has spoken says nothing."""
        if app_first:
            self._client_first = False
        elif client_spoke and self._client_first is None:
            self._client_first = True
