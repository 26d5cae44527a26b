"""Reads along on the TLS records of a client: how large its hello is, how many and how small they
are.

OpenSSL takes a hello of up to 128 KiB and makes room for it as soon as it is announced. It handles
what carries no bytes (key updates, empty records) without a word to us, some 600 of them in one
read. Both are seen here, from the heads of records (RFC 8446, 5.1) and of the hellos in them. Pure:
bytes in, a count out.
"""

from __future__ import annotations

from control.server.callers.budget import KIB
from control.server.callers.refusals import CallRefusal
from control.server.front.meter import Misbehaved

HEAD_BYTES = 5
MESSAGE_HEAD_BYTES = 4
HANDSHAKE, ENCRYPTED = 22, 23

# A client's hello has 2 KiB with a post-quantum key share. A longer one costs 128 KiB more.
HELLO_BYTES_MAX = 16 * KIB
# Records until the first encrypted one: two hellos and a change of cipher are three, a client that
# cuts small pieces sends five times as many.
HELLO_RECORDS_MAX = 16

# Encrypted records that have no room for a frame's head: key updates, empty records, bytes one by
# one. One more is allowed for each 16 KiB that come otherwise, since writers cut at that.
TINY_RECORD_BYTES = 9 + 17  # with TLS's own
TINY_RECORDS_MAX = 64
TINY_RECORD_EARNED_BYTES = 16 * KIB


class Records:
    """`feed` everything that the client sends, in order."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._kind = self._left = 0  # bytes of the record's payload to come
        self._is_clear = True  # no encrypted record came yet
        self._hellos = 0  # records before it
        self._message = bytearray()  # head of a handshake message
        self._message_left = 0
        self._tiny = 0
        self._earned_bytes = 0

    def feed(self, view: memoryview) -> int:
        """Records that begin in these bytes. Raises Misbehaved."""
        begun = at = 0
        end = len(view)
        while at < end:
            if self._left == 0:
                step = min(HEAD_BYTES - len(self._head), end - at)
                self._head += view[at : at + step]
                if len(self._head) == HEAD_BYTES:
                    begun += 1
                    self._begin()
            else:
                step = min(self._left, end - at)
                self._left -= step
                if self._is_clear and self._kind == HANDSHAKE:
                    self._hello(view[at : at + step])
            at += step
        return begun

    def _begin(self) -> None:
        self._kind = self._head[0]
        self._left = self._head[3] << 8 | self._head[4]
        self._head.clear()
        self._is_clear = self._is_clear and self._kind != ENCRYPTED
        if self._is_clear:
            self._hellos += 1
            if self._hellos > HELLO_RECORDS_MAX:
                raise Misbehaved(CallRefusal.HELLO_TOO_LARGE)
        elif self._left < TINY_RECORD_BYTES:
            self._tiny += 1
            if self._tiny > TINY_RECORDS_MAX:
                raise Misbehaved(CallRefusal.TINY_RECORDS)
        elif self._tiny:
            self._earned_bytes += self._left
            if self._earned_bytes >= TINY_RECORD_EARNED_BYTES:
                self._earned_bytes = 0
                self._tiny -= 1

    def _hello(self, view: memoryview) -> None:
        while len(view):
            if self._message_left:
                step = min(self._message_left, len(view))
                self._message_left -= step
            else:
                step = min(MESSAGE_HEAD_BYTES - len(self._message), len(view))
                self._message += view[:step]
                if len(self._message) == MESSAGE_HEAD_BYTES:
                    self._message_left = int.from_bytes(self._message[1:], "big")
                    self._message.clear()
                    if self._message_left > HELLO_BYTES_MAX:
                        raise Misbehaved(CallRefusal.HELLO_TOO_LARGE)
            view = view[step:]
