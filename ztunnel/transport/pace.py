"""The pace at which one tunnel is read: less at once while others wait for it, and an end to
records that carry nothing. Decides; knows no socket."""

from __future__ import annotations

from typing import Final

from ztunnel.loop.turns import SLICE_S
from ztunnel.transport.scratch import READ_BYTES_MAX

# A read while a full one takes more than its slice, and others wait.
READ_BYTES_LEAST: Final = 2048
READ_GROWTH: Final = 4
# A record brings 16 KiB at once, however little is read; tiny frames in it are handled this many
# bytes at a time.
PIECE_BYTES: Final = 1024
# TLS records without data (key updates, tickets): in a second, and at once. Peers change their keys
# after hours; a foreign server sends two tickets.
SILENT_PER_S: Final = 1.0
SILENT_BURST: Final = 64.0


class ReadPace:
    __slots__ = ("_silent_at_s", "_silent_owed", "read_bytes")

    def __init__(self) -> None:
        self.read_bytes = READ_BYTES_MAX
        self._silent_owed = 0.0
        self._silent_at_s = 0.0

    def took(self, took_s: float, crowded: bool) -> None:
        """Size the next read by the time that the last one took, handling included."""
        if took_s > SLICE_S and crowded:
            self.read_bytes = max(READ_BYTES_LEAST, self.read_bytes // READ_GROWTH)
        elif took_s * READ_GROWTH < SLICE_S or not crowded:
            self.read_bytes = min(READ_BYTES_MAX, self.read_bytes * READ_GROWTH)

    @property
    def in_pieces(self) -> bool:
        """True if even the smallest reads take long: a record of TLS is handled in pieces then."""
        return self.read_bytes <= READ_BYTES_LEAST

    def silent(self, count: int, now_s: float) -> bool:
        """Count records without data: each costs a decryption, and a key update a new key and an
        answer too. False if they are too many."""
        paid = max(0.0, now_s - self._silent_at_s) * SILENT_PER_S
        self._silent_owed = max(0.0, self._silent_owed - paid) + count
        self._silent_at_s = now_s
        return self._silent_owed <= SILENT_BURST
