"""A peer's bytes before its TLS handshake is done. OpenSSL has a bound of 100 KiB for each of its
messages, and makes room for one when its first bytes are there. Pure."""

from __future__ import annotations

from typing import Final

from control.kit.tls_records import HELLO_BYTES_MAX, HelloTooLarge, TlsRecords
from ztunnel.transport.scratch import FLIGHT_BYTES

# Bytes from a peer until its handshake is done: a hello, a flight, and data that came with it.
# Bytes that wait for the end of a message take up to three times their size.
HANDSHAKE_BYTES_MAX: Final = HELLO_BYTES_MAX + 2 * FLIGHT_BYTES


class Opening:
    __slots__ = ("_bytes", "_records")

    def __init__(self) -> None:
        self._bytes = 0
        self._records = TlsRecords()

    def look(self, data: memoryview) -> None:
        """HelloTooLarge if they are more than any peer has to send."""
        self._bytes += len(data)
        if self._bytes > HANDSHAKE_BYTES_MAX:
            raise HelloTooLarge("the peer's part of the handshake has no end")
        self._records.feed(data)
