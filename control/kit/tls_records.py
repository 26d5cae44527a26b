"""Reads along on the TLS 1.3 records of a peer: how large its hello is, and the pieces of it.

OpenSSL takes a hello of up to 128 KiB and makes room for it as soon as it is announced. It is seen
here before, from the heads of records (RFC 8446, 5.1) and of the hellos in them; behind encrypted
records too, since early data may come before a second hello. Pure: bytes in, a count out.
"""

from __future__ import annotations

from typing import Final

from control.kit.errors import PeerError

HEAD_BYTES: Final = 5
MESSAGE_HEAD_BYTES: Final = 4
HANDSHAKE: Final = 22
ENCRYPTED: Final = 23

# A hello has 2 KiB with a post-quantum key share. A longer one costs 128 KiB more.
HELLO_BYTES_MAX: Final = 16 * 1024
# Records in the clear: two hellos and a change of cipher are three, a peer that cuts small pieces
# sends five times as many.
HELLO_RECORDS_MAX: Final = 16


class HelloTooLarge(PeerError):
    """Longer, or in more pieces, than any hello has to be."""

    reason = "hello_too_large"


class TlsRecords:
    """`feed` everything that the peer sends, in order."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._kind = self._left = 0  # bytes of the record's payload to come
        self._clear = 0  # records that are not encrypted
        self._message = bytearray()  # head of a handshake message
        self._message_left = 0

    def feed(self, view: memoryview) -> int:
        """Records that begin in these bytes. Raises HelloTooLarge."""
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
                if self._kind == HANDSHAKE:
                    self._hello(view[at : at + step])
            at += step
        return begun

    def encrypted(self, length: int) -> None:
        """An encrypted record begins; its bounds are the heir's."""

    def _begin(self) -> None:
        self._kind = self._head[0]
        self._left = self._head[3] << 8 | self._head[4]
        self._head.clear()
        if self._kind == ENCRYPTED:
            self.encrypted(self._left)
            return
        self._clear += 1
        if self._clear > HELLO_RECORDS_MAX:
            raise HelloTooLarge("the hello comes in too many pieces")

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
                        raise HelloTooLarge(f"the hello has {self._message_left} bytes")
            view = view[step:]
