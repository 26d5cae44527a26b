"""Sees that small messages and bulk share a tunnel, and says how much bulk may then be under way;
decides only, and knows no socket.

All streams of a tunnel are one TCP connection, so a small message waits behind every byte of bulk
that was sent before it: with windows of 4 MiB some 10 MB, most of it in the kernel's buffers of
the receiving side. Between near hosts much less keeps a transfer going. Far away the windows stay.
"""

from __future__ import annotations

from typing import Final

# A read of at least so much has bulk in it.
BULK_READ_BYTES_MIN: Final = 64 * 1024
# What a small message has at most.
SMALL_BYTES_MAX: Final = 4 * 1024
# The first and the last piece of a read may be bulk's own, cut off by the read.
SMALL_MIN: Final = 3
# Of each stream while both share a tunnel (measured beside 4 bulk streams: 1 MiB has 1.3 times the
# p99, 256 KiB 0.8 times, but 0.8 times the throughput too).
MIXED_WINDOW_BYTES: Final = 512 * 1024
# Without a mixed read for so long it is over.
MIXED_S: Final = 0.1


class Mixture:
    __slots__ = ("_until_s", "mixed", "small")

    def __init__(self) -> None:
        self.small = 0  # small messages in the read that is under way
        self.mixed = False
        self._until_s = 0.0

    def read(self, count: int, now_s: float) -> bool:
        """A read of so many bytes was handed out; whether `mixed` has changed."""
        small, self.small = self.small, 0
        if count < BULK_READ_BYTES_MIN:
            return False
        if small >= SMALL_MIN:
            self._until_s = now_s + MIXED_S
        was, self.mixed = self.mixed, now_s < self._until_s
        return was is not self.mixed
