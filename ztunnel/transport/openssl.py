"""Bytes in and out of one TLS connection, by OpenSSL's own functions.

pyOpenSSL makes the connection, shakes hands, and says what went wrong. For what each message passes
its wrappers take longer than OpenSSL: four functions are called here instead, with the handles that
its object holds. A call that failed is made once more by the wrapper, which raises the error. The
handles' names are private: with a version that has none, the wrappers do everything.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

from ztunnel.transport.scratch import buffer

# Most that one record carries (RFC 8446, section 5.1).
RECORD_PLAIN_BYTES_MAX: Final = 16_384
# Encrypted bytes on their way out: those of the largest write, in one piece. All connections of the
# worker share them, as no view into them outlives a call.
OUT_BYTES: Final = 576 * 1024

_ffi: Final[Any] = Binding.ffi
_lib: Final[Any] = Binding.lib
_pointer: Final[Any] = _ffi.from_buffer
_CHARS: Final[Any] = _ffi.typeof("char[]")
_ssl_read: Final[Any] = _lib.SSL_read
_ssl_write: Final[Any] = _lib.SSL_write
_bio_read: Final[Any] = _lib.BIO_read
_bio_write: Final[Any] = _lib.BIO_write
_OUT: Final = buffer(OUT_BYTES)
_OUT_POINTER: Final[Any] = _pointer(_OUT)


class Wire:
    """By pyOpenSSL's public methods. Each call raises `SSL.Error` where they do."""

    __slots__ = ("_connection",)

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def feed(self, data: memoryview) -> None:
        """Take encrypted bytes from the socket; there is at least one."""
        self._connection.bio_write(data)

    def read(self, into: memoryview) -> int:
        """Decrypt what is left of one record, as far as there is room, and return the number of
        bytes. There is room for at least one."""
        return self._connection.recv_into(into, RECORD_PLAIN_BYTES_MAX)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt all of it: `take` has it then."""
        self._connection.send(data)

    def take(self) -> bytes:
        """All encrypted bytes that are for the socket."""
        out = b""
        try:
            while True:
                out += self._connection.bio_read(OUT_BYTES)
        except SSL.WantReadError:
            return out


class DirectWire(Wire):
    """By OpenSSL's functions."""

    __slots__ = ("_from", "_into", "_ssl")

    def __init__(self, connection: SSL.Connection) -> None:
        """AttributeError: this pyOpenSSL keeps its handles elsewhere."""
        super().__init__(connection)  # the handles are freed with it
        held: Any = connection
        self._ssl: Any = held._ssl
        self._into: Any = held._into_ssl
        self._from: Any = held._from_ssl

    def feed(self, data: memoryview) -> None:
        if _bio_write(self._into, _pointer(data), len(data)) <= 0:
            self._connection.bio_write(data)

    def read(self, into: memoryview) -> int:
        room = len(into)  # OpenSSL believes what it is told
        size = room if room < RECORD_PLAIN_BYTES_MAX else RECORD_PLAIN_BYTES_MAX
        count: int = _ssl_read(self._ssl, _pointer(_CHARS, into, True), size)
        return count if count > 0 else self._connection.recv_into(into, size)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if _ssl_write(self._ssl, _pointer(data), len(data)) <= 0:
            self._connection.send(data)

    def take(self) -> bytes:
        count: int = _bio_read(self._from, _OUT_POINTER, OUT_BYTES)
        if count < OUT_BYTES:
            return bytes(_OUT[:count]) if count > 0 else b""
        out = bytes(_OUT)
        while count == OUT_BYTES:
            count = _bio_read(self._from, _OUT_POINTER, OUT_BYTES)
            out += _OUT[: max(count, 0)]
        return out


def wire_of(connection: SSL.Connection) -> Wire:
    """The faster one of both."""
    try:
        return DirectWire(connection)
    except AttributeError:
        return Wire(connection)
