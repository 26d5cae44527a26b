"""Netlink conversations with the kernel: messages, attributes, questions and their whole answers.

Spoken directly, because importing pyroute2 would cost 25 MiB of the agent's budget of 45. Layouts
of requests and answers belong to the callers (sockets.py, veth.py).
"""

import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from agent.datapath.errors import DatapathError

ROUTE, SOCK_DIAG = 0, 4  # protocols
REQUEST, ACKNOWLEDGE, DUMP = 0x1, 0x4, 0x300  # NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP

_ERROR, _DONE = 2, 3  # kinds of messages that end an answer
_HEADER = struct.Struct("=IHHII")  # length, kind, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, kind
_ATTRIBUTE_KIND_MASK = 0x3FFF  # NLA_TYPE_MASK: without the flags for nesting and byte order
# The kernel fills one datagram of a dump up to 32 KiB.
_DATAGRAM_BYTES_MAX = 65536
_RECEIVE_TIMEOUT_S = 5.0


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of each message in a datagram; DatapathError for a broken length."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, _, _, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            raise DatapathError(f"a netlink message of {length} bytes")
        yield kind, datagram[offset + _HEADER.size : offset + length]
        offset += length + 3 & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of each attribute, up to the first one with an impossible length."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _ATTRIBUTE_KIND_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + 3 & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


class Netlink:
    """One socket. It belongs for ever to the network namespace in which it was opened."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(_RECEIVE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> Iterator[list[bytes]]:
        """Payloads of the answer, a list for each datagram, so that callers may pause in between.

        DatapathError, with `what` was asked and the kernel's error number, when it refuses. The
        kernel ends every dump; take the whole answer before the next question.
        """
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        is_over = False
        while not is_over:
            is_over = not flags & DUMP
            payloads = []
            for found, payload in messages(self._socket.recv(_DATAGRAM_BYTES_MAX)):
                if found == _ERROR:
                    _check(payload, what)
                    is_over = True
                elif found == _DONE:
                    is_over = True
                else:
                    payloads.append(payload)
            yield payloads


def _check(payload: bytes, what: str) -> None:
    """DatapathError unless the error message is an acknowledgement (number 0)."""
    (number,) = struct.unpack_from("=i", payload)
    if number:
        raise DatapathError(what, -number)
