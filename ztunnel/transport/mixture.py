"""Detects small messages and bulk in the same tunnel, which is then to have smaller windows.

All streams of a tunnel are one TCP connection, so a small message waits behind every byte of bulk
that was sent before it: with windows of 4 MiB that is some 10 MB, most of it in the kernel's
buffers at the receiving side. Between near hosts a transfer needs much less to keep going. Far away
the windows stay. It only decides, and knows no socket.
"""

from __future__ import annotations

from typing import Final

# A read of this size has bulk in it.
BULK_READ_BYTES_MIN: Final = 64 * 1024
# Largest message that counts as small.
SMALL_BYTES_MAX: Final = 4 * 1024
# Small pieces that make a mixture. The first and the last may be bulk, cut off by the read.
SMALL_MIN: Final = 3
# Window of each stream while both share a tunnel (measured beside 4 bulk streams: 1 MiB has 1.3
# times the p99; 256 KiB has 0.8 times, but 0.8 times the throughput too).
MIXED_WINDOW_BYTES: Final = 512 * 1024
# The mixture is over after this time without a mixed read.
MIXED_S: Final = 0.1


class Mixture:
    __slots__ = ("_until_s", "mixed", "small")

    def __init__(self) -> None:
        self.small = 0  # small messages in the read that is under way
        self.mixed = False
        self._until_s = 0.0

    def read(self, count: int, now_s: float) -> bool:
        """Note that a read of `count` bytes was handed out; True if `mixed` has changed."""
        small, self.small = self.small, 0
        if count < BULK_READ_BYTES_MIN:
            return False
        if small >= SMALL_MIN:
            self._until_s = now_s + MIXED_S
        was, self.mixed = self.mixed, now_s < self._until_s
        return was is not self.mixed
