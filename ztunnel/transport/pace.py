"""The pace at which one tunnel is read: less at once while others wait for it, and an end to
records that carry nothing. Decides; knows no socket."""

from __future__ import annotations

from typing import Final

from ztunnel.loop.turns import SLICE_S
from ztunnel.transport.openssl import RECORD_PLAIN_BYTES_MAX
from ztunnel.transport.scratch import READ_BYTES_MAX
from ztunnel.transport.tls import TINY_RECORDS

# Reads of full length that took less say nothing about others' waits.
NOTED_S: Final = 0.00005
# A read may take so long while nobody else has work: whoever comes meanwhile waits for its end.
READ_ALONE_S: Final = 0.002
# A read while a full one takes more than its slice, and others wait.
READ_BYTES_LEAST: Final = 1024
# Bytes whose cost is looked at together: two records.
SPAN_BYTES: Final = 32 * 1024
# A record brings 16 KiB at once, however little is read; tiny frames in it are handled this many
# bytes at a time.
PIECE_BYTES: Final = 256
# Tiny records, at some 3 µs each, are decrypted so many at a time: more than may be tiny.
PIECE_RECORDS: Final = 2 * TINY_RECORDS
# TLS records with next to no data (key updates, tickets): in a second, and at once. Peers change
# their keys after hours; a foreign server sends two tickets.
SILENT_PER_S: Final = 1.0
SILENT_BURST: Final = 64.0


class ReadPace:
    __slots__ = ("_bytes", "_silent_at_s", "_silent_owed", "_took_s", "in_pieces", "read_bytes")

    def __init__(self) -> None:
        self.read_bytes = READ_BYTES_MAX
        self.in_pieces = False  # a record alone takes longer than a slice
        self._bytes = 0
        self._took_s = 0.0
        self._silent_owed = 0.0
        self._silent_at_s = 0.0

    def begin(self, crowded: bool) -> None:
        """Be careful with a new tunnel's first bytes, while others wait."""
        if crowded:
            self.read_bytes, self.in_pieces = RECORD_PLAIN_BYTES_MAX, True

    def took(self, took_s: float, count: int, crowded: bool, slice_s: float = SLICE_S) -> None:
        """Size the next reads by what the last `count` bytes cost, handling included. A record is
        handled when its last bytes come, so the cost of one read says nothing."""
        self._bytes += count
        self._took_s += took_s
        if not crowded:
            self.in_pieces = False
        if self._bytes < SPAN_BYTES:
            return
        aim_s = slice_s if crowded else READ_ALONE_S
        fitting = int(self._bytes * aim_s / self._took_s) if self._took_s else READ_BYTES_MAX
        self.read_bytes = max(READ_BYTES_LEAST, min(READ_BYTES_MAX, fitting))
        self.in_pieces = crowded and fitting < RECORD_PLAIN_BYTES_MAX
        self._bytes, self._took_s = 0, 0.0

    def silent(self, count: int, now_s: float) -> bool:
        """Count records without data: each costs a decryption, and a key update a new key and an
        answer too. False if they are too many."""
        paid = max(0.0, now_s - self._silent_at_s) * SILENT_PER_S
        self._silent_owed = max(0.0, self._silent_owed - paid) + count
        self._silent_at_s = now_s
        return self._silent_owed <= SILENT_BURST
