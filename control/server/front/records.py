"""Reads along on the TLS records of a client: how large its hello is, how many and how small they
are.

OpenSSL handles what carries no bytes (key updates, empty records) without a word to us, some 600 of
them in one read. They are seen here, from the heads of records (RFC 8446, 5.1). Pure: bytes in, a
count out.
"""

from __future__ import annotations

from control.kit.tls_records import HelloTooLarge, TlsRecords
from control.server.callers.budget import KIB
from control.server.callers.refusals import CallRefusal
from control.server.front.meter import Misbehaved

# Encrypted records that have no room for a frame's head: key updates, empty records, bytes one by
# one. One more is allowed for each 16 KiB that come otherwise, since writers cut at that.
TINY_RECORD_BYTES = 9 + 17  # with TLS's own
TINY_RECORDS_MAX = 64
TINY_RECORD_EARNED_BYTES = 16 * KIB


class Records(TlsRecords):
    """`feed` everything that the client sends, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._tiny = 0
        self._earned_bytes = 0

    def feed(self, view: memoryview) -> int:
        """Records that begin in these bytes. Raises Misbehaved."""
        try:
            return super().feed(view)
        except HelloTooLarge:
            raise Misbehaved(CallRefusal.HELLO_TOO_LARGE) from None

    def encrypted(self, length: int) -> None:
        if length < TINY_RECORD_BYTES:
            self._tiny += 1
            if self._tiny > TINY_RECORDS_MAX:
                raise Misbehaved(CallRefusal.TINY_RECORDS)
        elif self._tiny:
            self._earned_bytes += length
            if self._earned_bytes >= TINY_RECORD_EARNED_BYTES:
                self._earned_bytes = 0
                self._tiny -= 1
