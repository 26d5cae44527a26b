"""One end of an HTTP/2 connection by libnghttp2, in memory: bytes in, bytes out, notes taken.

The library is what curl speaks HTTP/2 with, so it is there wherever curl is. Only what the tests
need is bound, with the argument types written down once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_int32,
    c_size_t,
    c_ssize_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from dataclasses import dataclass, field

_DEFERRED = -508
_DATA_FLAG_EOF = 1
# It rejects a peer's nonsense with codes below this one; none may come of what we send.
_OK = 0


class _FrameHead(Structure):
    _fields_ = [
        ("length", c_size_t),
        ("stream_id", c_int32),
        ("type", c_uint8),
        ("flags", c_uint8),
        ("reserved", c_uint8),
    ]


class _GoAway(Structure):
    """Also good for RST_STREAM, whose error code lies where the last stream id lies here."""

    _fields_ = [("head", _FrameHead), ("first", c_int32), ("second", c_uint32)]


class _Field(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("value", c_char_p),
        ("name_length", c_size_t),
        ("value_length", c_size_t),
        ("flags", c_uint8),
    ]


class _Setting(Structure):
    _fields_ = [("id", c_int32), ("value", c_uint32)]


_OnRead = CFUNCTYPE(
    c_ssize_t, c_void_p, c_int32, c_void_p, c_size_t, POINTER(c_uint32), c_void_p, c_void_p
)
_OnFrame = CFUNCTYPE(c_int, c_void_p, POINTER(_GoAway), c_void_p)
_OnInvalid = CFUNCTYPE(c_int, c_void_p, POINTER(_GoAway), c_int, c_void_p)
_OnData = CFUNCTYPE(c_int, c_void_p, c_uint8, c_int32, c_void_p, c_size_t, c_void_p)
_OnHeader = CFUNCTYPE(
    c_int,
    c_void_p,
    POINTER(_GoAway),
    c_void_p,
    c_size_t,
    c_void_p,
    c_size_t,
    c_uint8,
    c_void_p,
)
_OnClose = CFUNCTYPE(c_int, c_void_p, c_int32, c_uint32, c_void_p)


class _Provider(Structure):
    _fields_ = [("source", c_void_p), ("read", _OnRead)]


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libnghttp2.so.14")
    pointer = POINTER(c_void_p)
    fields = [POINTER(_Field), c_size_t]
    for name, result, arguments in (
        ("session_callbacks_new", c_int, [pointer]),
        ("session_callbacks_del", None, [c_void_p]),
        ("session_callbacks_set_on_frame_recv_callback", None, [c_void_p, _OnFrame]),
        ("session_callbacks_set_on_invalid_frame_recv_callback", None, [c_void_p, _OnInvalid]),
        ("session_callbacks_set_on_data_chunk_recv_callback", None, [c_void_p, _OnData]),
        ("session_callbacks_set_on_header_callback", None, [c_void_p, _OnHeader]),
        ("session_callbacks_set_on_stream_close_callback", None, [c_void_p, _OnClose]),
        ("session_client_new", c_int, [pointer, c_void_p, c_void_p]),
        ("session_server_new", c_int, [pointer, c_void_p, c_void_p]),
        ("session_del", None, [c_void_p]),
        ("session_mem_recv", c_ssize_t, [c_void_p, c_char_p, c_size_t]),
        ("session_mem_send", c_ssize_t, [c_void_p, pointer]),
        ("submit_settings", c_int, [c_void_p, c_uint8, POINTER(_Setting), c_size_t]),
        ("submit_request", c_int32, [c_void_p, c_void_p, *fields, POINTER(_Provider), c_void_p]),
        ("submit_response", c_int, [c_void_p, c_int32, *fields, POINTER(_Provider)]),
        ("session_resume_data", c_int, [c_void_p, c_int32]),
        ("submit_rst_stream", c_int, [c_void_p, c_uint8, c_int32, c_uint32]),
        ("submit_ping", c_int, [c_void_p, c_uint8, c_char_p]),
        ("submit_shutdown_notice", c_int, [c_void_p]),
        ("submit_goaway", c_int, [c_void_p, c_uint8, c_int32, c_uint32, c_char_p, c_size_t]),
        ("session_want_read", c_int, [c_void_p]),
    ):
        function = getattr(library, f"nghttp2_{name}")
        function.restype, function.argtypes = result, arguments
    return library


_lib = _library()


def _check(result: int) -> int:
    assert result >= _OK, f"libnghttp2 refused: {result}"
    return result


def _fields(headers: Sequence[tuple[str, str]]) -> ctypes.Array[_Field]:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return (_Field * len(raw))(
        *[_Field(name, value, len(name), len(value), 0) for name, value in raw]
    )


@dataclass(eq=False)
class Tunnel:
    """Bytes that came through one stream, and bytes that wait for it."""

    headers: dict[str, str] = field(default_factory=dict)
    got: bytearray = field(default_factory=bytearray)
    waiting: bytearray = field(default_factory=bytearray)
    ending: bool = False
    ended_by_peer: bool = False
    closed_with: int | None = None


class Peer:
    """A client, or a server which leaves it to the test what to answer."""

    def __init__(self, *, client: bool, settings: Sequence[tuple[int, int]] = ()) -> None:
        self.tunnels: dict[int, Tunnel] = {}
        self.goaways: list[tuple[int, int]] = []
        self.complaints: list[tuple[int, int]] = []  # (frame type, library error)
        self.pongs = 0
        # ctypes keeps no reference to callbacks; the library calls them as long as it lives.
        self._callbacks = (
            _OnFrame(self._on_frame),
            _OnInvalid(self._on_invalid),
            _OnData(self._on_data),
            _OnHeader(self._on_header),
            _OnClose(self._on_close),
        )
        self._provider = _Provider(None, _OnRead(self._on_read))
        self._session = c_void_p()
        self._open(client)
        values = (_Setting * len(settings))(*[_Setting(*each) for each in settings])
        _check(_lib.nghttp2_submit_settings(self._session, 0, values, len(settings)))

    def _open(self, client: bool) -> None:
        table = c_void_p()
        _check(_lib.nghttp2_session_callbacks_new(byref(table)))
        names = ("on_frame_recv", "on_invalid_frame_recv", "on_data_chunk_recv", "on_header")
        for name, callback in zip((*names, "on_stream_close"), self._callbacks, strict=True):
            getattr(_lib, f"nghttp2_session_callbacks_set_{name}_callback")(table, callback)
        new = _lib.nghttp2_session_client_new if client else _lib.nghttp2_session_server_new
        _check(new(byref(self._session), table, None))
        _lib.nghttp2_session_callbacks_del(table)

    def close(self) -> None:
        _lib.nghttp2_session_del(self._session)

    # -- what the library tells --------------------------------------------------------------------

    def _tunnel(self, stream_id: int) -> Tunnel:
        return self.tunnels.setdefault(stream_id, Tunnel())

    def _on_frame(self, _session: int, frame: ctypes._Pointer[_GoAway], _user: int) -> int:
        head = frame.contents.head
        if head.type in (0, 1) and head.flags & 1:
            self._tunnel(head.stream_id).ended_by_peer = True
        elif head.type == 6 and head.flags & 1:
            self.pongs += 1
        elif head.type == 7:
            self.goaways.append((frame.contents.first, frame.contents.second))
        return 0

    def _on_invalid(
        self, _session: int, frame: ctypes._Pointer[_GoAway], error: int, _user: int
    ) -> int:
        self.complaints.append((frame.contents.head.type, error))
        return 0

    def _on_data(
        self, _session: int, _flags: int, stream_id: int, data: int, length: int, _user: int
    ) -> int:
        self._tunnel(stream_id).got += ctypes.string_at(data, length)
        return 0

    def _on_header(
        self,
        _session: int,
        frame: ctypes._Pointer[_GoAway],
        name: int,
        name_length: int,
        value: int,
        value_length: int,
        _flags: int,
        _user: int,
    ) -> int:
        text = ctypes.string_at(value, value_length).decode()
        headers = self._tunnel(frame.contents.head.stream_id).headers
        headers[ctypes.string_at(name, name_length).decode()] = text
        return 0

    def _on_close(self, _session: int, stream_id: int, code: int, _user: int) -> int:
        self._tunnel(stream_id).closed_with = code
        return 0

    def _on_read(
        self,
        _session: int,
        stream_id: int,
        into: int,
        length: int,
        flags: ctypes._Pointer[c_uint32],
        _source: int,
        _user: int,
    ) -> int:
        tunnel = self._tunnel(stream_id)
        piece = bytes(tunnel.waiting[:length])
        del tunnel.waiting[:length]
        ctypes.memmove(into, piece, len(piece))
        if tunnel.ending and not tunnel.waiting:
            flags[0] = _DATA_FLAG_EOF
        elif not piece:
            return _DEFERRED
        return len(piece)

    # -- what the test tells it --------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        assert _check(_lib.nghttp2_session_mem_recv(self._session, data, len(data))) == len(data)

    def take(self) -> bytes:
        out = bytearray()
        piece = c_void_p()
        while length := _check(_lib.nghttp2_session_mem_send(self._session, byref(piece))):
            out += ctypes.string_at(piece.value or 0, length)
        return bytes(out)

    def connect(self, authority: str, headers: Sequence[tuple[str, str]] = ()) -> int:
        fields = _fields([(":method", "CONNECT"), (":authority", authority), *headers])
        provider = byref(self._provider)
        return _check(
            _lib.nghttp2_submit_request(self._session, None, fields, len(fields), provider, None)
        )

    def answer(self, stream_id: int, status: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        fields = _fields([(":status", str(status)), *headers])
        provider = byref(self._provider)
        _check(
            _lib.nghttp2_submit_response(self._session, stream_id, fields, len(fields), provider)
        )

    def say(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        tunnel = self._tunnel(stream_id)
        tunnel.waiting += data
        tunnel.ending = end
        # "Not deferred" is an answer too: the library asks for the bytes by itself then.
        _lib.nghttp2_session_resume_data(self._session, stream_id)

    def reset(self, stream_id: int, code: int) -> None:
        _check(_lib.nghttp2_submit_rst_stream(self._session, 0, stream_id, code))

    def ping(self) -> None:
        _check(_lib.nghttp2_submit_ping(self._session, 0, b"87654321"))

    def announce_end(self) -> None:
        _check(_lib.nghttp2_submit_shutdown_notice(self._session))

    def goaway(self, last_stream_id: int, code: int) -> None:
        _check(_lib.nghttp2_submit_goaway(self._session, 0, last_stream_id, code, None, 0))

    @property
    def finished(self) -> bool:
        """It has nothing more to hear: no stream is open and the connection is draining."""
        return not _lib.nghttp2_session_want_read(self._session)
