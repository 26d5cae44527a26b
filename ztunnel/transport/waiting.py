"""Bytes that an app does not take yet, on the account of the tenant that they wait for."""

from __future__ import annotations

from collections import deque

from ztunnel.tenants.account import Account
from ztunnel.transport.sockets import Pieces, gather


class Waiting:
    """Pieces in order, our own copies, and their size."""

    __slots__ = ("_account", "_size", "pieces")

    def __init__(self, account: Account) -> None:
        self.pieces: Pieces = deque()
        self._account = account
        self._size = 0

    def hold(self, data: bytes | memoryview) -> None:
        """Copy bytes behind the others."""
        gather(self.pieces, data)
        self._size += len(data)
        self._account.add(len(data))

    def hold_all(self, pieces: Pieces) -> None:
        """Copy pieces whose memory is somebody else's, as one."""
        rest = bytearray()
        for piece in pieces:
            rest += piece
        self.pieces.append(rest)
        self._size += len(rest)
        self._account.add(len(rest))

    def taken(self, count: int) -> None:
        """The app has taken so many bytes of the pieces."""
        self._size -= count
        self._account.give(count)

    def drop(self) -> None:
        """Nothing waits here any more; whoever takes the pieces over has them on an account."""
        self.taken(self._size)
