"""Decides if an app may hear of a connection a moment later, with its client's first bytes.

The last ACK of a TCP handshake can wait for the first bytes and go with them. That saves a packet,
a wake-up of the app, and a tenth of a connection's CPU on this side. An app that speaks first would
wait in vain. So the ACK waits only at ports whose clients were seen to speak first, never again
once the app did, and for `PATIENCE_S` at most. No socket is touched here.
"""

from __future__ import annotations

from typing import Final

# A client of the same zone has spoken by then. An app that speaks first for the first time hears of
# its client this much later, once.
PATIENCE_S: Final = 0.005


class FirstWord:
    """Experience with the connections to one port."""

    __slots__ = ("_client_first",)

    def __init__(self) -> None:
        self._client_first: bool | None = None  # None until there is any

    @property
    def may_wait(self) -> bool:
        """True if the next connection's last ACK may wait for the client's first bytes."""
        return self._client_first is True

    def seen(self, app_first: bool, client_spoke: bool) -> None:
        """Learn from a connection, at its end at the latest; nothing if nobody spoke in it."""
        if app_first:
            self._client_first = False
        elif client_spoke and self._client_first is None:
            self._client_first = True
