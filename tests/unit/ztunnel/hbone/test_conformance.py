"""The cases of h2spec 2.2.1 as a table: frames of a client, and a server's reaction.

Sections are those of RFC 9113 (7540 where it says so). The cases at the end are those in which
a tunnel's server is meant to differ: DECISIONS.md, 33.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from tests.unit.ztunnel.hbone.pair import field, frames_of, request_frame
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import RequestReceived
from ztunnel.hbone.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    pack_frame,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role

HELLO = PREFACE + pack_frame(SETTINGS, 0, 0, b"") + pack_frame(SETTINGS, ACK, 0, b"")
_GET = b"\x82\x84\x87\x01\x01x"  # GET / over https at x
PEER_CLOSED = (ErrorCode.STREAM_CLOSED,)
PROTOCOL = (ErrorCode.PROTOCOL_ERROR,)
SIZE = (ErrorCode.FRAME_SIZE_ERROR,)
COMPRESSION = (ErrorCode.COMPRESSION_ERROR,)
FLOW = (ErrorCode.FLOW_CONTROL_ERROR,)


@dataclass(frozen=True)
class Reaction:
    """Seen in what the server writes: codes of GOAWAY and RST_STREAM, answers to a PING."""

    goaway: tuple[int, ...] = ()
    reset: tuple[int, ...] = ()
    pongs: int = 0


def serve(data: bytes, *, answer: bool) -> Reaction:
    """Feed a server; each request gets a 200 that ends the stream if `answer`, else nothing."""
    server = Session(Role.SERVER, SERVER_SETTINGS)
    server.start()
    written = bytearray()
    step = 1 if answer else 1 << 14  # an answer comes between two frames
    for start in range(0, len(data), step):
        for event in server.receive(data[start : start + step]):
            if isinstance(event, RequestReceived) and answer:
                server.respond(event.stream, 200, (), end_stream=True)
        written += server.take()
    return read(bytes(written))


def read(written: bytes) -> Reaction:
    frames = frames_of(written)
    return Reaction(
        tuple(struct.unpack("!I", each[3][4:8])[0] for each in frames if each[0] == GOAWAY),
        tuple(struct.unpack("!I", each[3])[0] for each in frames if each[0] == RST_STREAM),
        sum(each[0] == PING and bool(each[1] & ACK) for each in frames),
    )


def request(*fields: tuple[str, str], stream: int = 1, ends: bool = True) -> bytes:
    block = b"".join(field(name.encode(), value.encode()) for name, value in fields)
    return pack_frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, block)


def get(stream: int = 1, *, ends: bool = True, flags: int = 0, before: bytes = b"") -> bytes:
    flags |= END_HEADERS | (END_STREAM if ends else 0)
    return pack_frame(HEADERS, flags, stream, before + _GET)


def whole(block: bytes) -> bytes:
    return pack_frame(HEADERS, END_HEADERS, 1, block)


def rest(block: bytes) -> bytes:
    return pack_frame(CONTINUATION, END_HEADERS, 1, block)


def data(payload: bytes, stream: int = 1, flags: int = END_STREAM) -> bytes:
    return pack_frame(DATA, flags, stream, payload)


def word(number: int) -> bytes:
    return struct.pack("!I", number)


def setting(key: int, value: int) -> bytes:
    return pack_frame(SETTINGS, 0, 0, struct.pack("!HI", key, value))


SLASH = ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x"))
PINGED = pack_frame(PING, 0, 0, b"h2spec!!")


def without(name: str) -> tuple[tuple[str, str], ...]:
    return tuple(each for each in SLASH if each[0] != name)


BREAKS = [
    ("3.4 an invalid preface", b"INVALID PREFACE\r\n\r\n" + b"x" * 30, PROTOCOL),
    ("4.2 DATA over the frame size", get(ends=False) + b"\x10\x00\x01\x00\x00\x00\x00\x00\x01",
     SIZE),
    ("4.3 a broken header block", whole(b"\xff\xff\xff\xff\xff\xff"),
     COMPRESSION),
    ("4.3 PRIORITY inside a block", pack_frame(HEADERS, 0, 1, _GET) +
     pack_frame(PRIORITY, 0, 1, word(0) + b"\xff"), PROTOCOL),
    ("4.3 HEADERS of another stream inside a block", pack_frame(HEADERS, 0, 1, _GET) + get(3),
     PROTOCOL),
    ("5.1 DATA on an idle stream", data(b"test"), PROTOCOL),
    ("5.1 RST_STREAM on an idle stream", pack_frame(RST_STREAM, 0, 1, word(8)), PROTOCOL),
    ("5.1 WINDOW_UPDATE on an idle stream", pack_frame(WINDOW_UPDATE, 0, 1, word(1)), PROTOCOL),
    ("5.1 CONTINUATION on an idle stream", rest(_GET),
     PROTOCOL),
    ("5.1 CONTINUATION behind END_STREAM", get() + rest(_GET),
     PROTOCOL),
    ("5.1 HEADERS behind both ends", get() + get(), PEER_CLOSED),
    ("5.1 CONTINUATION behind both ends", get() + rest(_GET),
     PROTOCOL),
    ("5.1 CONTINUATION behind RST_STREAM", get(ends=False) + pack_frame(RST_STREAM, 0, 1, word(8))
     + rest(_GET), PROTOCOL),
    ("5.1.1 an even stream", get(2), PROTOCOL),
    ("5.1.1 a stream with a smaller number", get(5) + get(3), PEER_CLOSED),
    ("7540 5.3.1 HEADERS that depend on themselves",
     get(flags=HAS_PRIORITY, before=word(1) + b"\xff"), PROTOCOL),
    ("7540 5.3.1 exclusive ones too",
     get(flags=HAS_PRIORITY, before=word(1 | 1 << 31) + b"\xff"), PROTOCOL),
    ("7540 5.3.1 PRIORITY that depends on itself",
     pack_frame(PRIORITY, 0, 1, word(1) + b"\xff"), PROTOCOL),
    ("6.1 DATA on stream 0", data(b"test", 0), PROTOCOL),
    ("6.1 padding longer than DATA", get(ends=False) +
     pack_frame(DATA, PADDED | END_STREAM, 1, b"\x06hello"), PROTOCOL),
    ("6.2 HEADERS on stream 0", get(0), PROTOCOL),
    ("6.2 padding longer than HEADERS",
     pack_frame(HEADERS, PADDED | END_HEADERS, 1, b"\xff" + _GET), PROTOCOL),
    ("6.3 PRIORITY on stream 0", pack_frame(PRIORITY, 0, 0, word(1) + b"\xff"), PROTOCOL),
    ("6.3 PRIORITY of a wrong size", pack_frame(PRIORITY, 0, 1, word(3)), SIZE),
    ("6.4 RST_STREAM on stream 0", pack_frame(RST_STREAM, 0, 0, word(8)), PROTOCOL),
    ("6.4 RST_STREAM of a wrong size", get(ends=False) + pack_frame(RST_STREAM, 0, 1, b"\0\0\0"),
     SIZE),
    ("6.5 an acknowledgement with a payload", pack_frame(SETTINGS, ACK, 0, b"\0"), SIZE),
    ("6.5 SETTINGS on a stream", pack_frame(SETTINGS, 0, 1, b"\0\3\0\0\0\x64"), PROTOCOL),
    ("6.5 SETTINGS of a wrong size", pack_frame(SETTINGS, 0, 0, b"\0\3\0"), SIZE),
    ("6.5.2 ENABLE_PUSH 2", setting(2, 2), PROTOCOL),
    ("6.5.2 a window too large", setting(4, 2**31), FLOW),
    ("6.5.2 a frame size too small", setting(5, 16383), PROTOCOL),
    ("6.5.2 a frame size too large", setting(5, 2**24), PROTOCOL),
    ("6.6 PUSH_PROMISE of a client", pack_frame(PUSH_PROMISE, END_HEADERS, 1, word(2) + _GET),
     PROTOCOL),
    ("6.7 PING on a stream", pack_frame(PING, 0, 1, b"h2spec!!"), PROTOCOL),
    ("6.7 PING of a wrong size", pack_frame(PING, 0, 0, b"h2spec"), SIZE),
    ("6.8 GOAWAY on a stream", pack_frame(GOAWAY, 0, 1, word(0) + word(0)), PROTOCOL),
    ("6.9 an empty WINDOW_UPDATE", pack_frame(WINDOW_UPDATE, 0, 0, word(0)), PROTOCOL),
    ("6.9 WINDOW_UPDATE of a wrong size", pack_frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"), SIZE),
    ("6.9.1 the connection's window overflows",
     2 * pack_frame(WINDOW_UPDATE, 0, 0, word(2**31 - 1)), FLOW),
    ("6.9.2 a window that overflows by SETTINGS", get(ends=False) +
     pack_frame(WINDOW_UPDATE, 0, 1, word(2**30)) + setting(4, 2**31 - 1), FLOW),
    ("6.10 CONTINUATION on stream 0", pack_frame(HEADERS, 0, 1, _GET) +
     pack_frame(CONTINUATION, END_HEADERS, 0, b""), PROTOCOL),
    ("6.10 another frame inside a block", pack_frame(HEADERS, 0, 1, _GET) + data(b"x"), PROTOCOL),
    ("6.10 CONTINUATION behind the whole block", get(ends=False) +
     rest(b""), PROTOCOL),
    ("7541 2.3.3 an index that does not exist", whole(b"\xff\x80\x01"),
     COMPRESSION),
    ("7541 4.2 a table size at the block's end", whole(_GET + b"\x20"),
     COMPRESSION),
    ("7541 6.1 index 0", whole(b"\x80"),
     COMPRESSION),
    ("7541 6.3 a table larger than allowed", whole(b"\x3f\xff\xff\x7f"
     + _GET), COMPRESSION),
]  # fmt: skip

RESETS = [
    ("5.1 DATA behind END_STREAM", get() + data(b"test"), PEER_CLOSED),
    ("5.1 HEADERS behind END_STREAM", get() + get(), PEER_CLOSED),
    ("6.9 an empty WINDOW_UPDATE of a stream", get(ends=False) +
     pack_frame(WINDOW_UPDATE, 0, 1, word(0)), PROTOCOL),
    ("6.9.1 a stream's window overflows", get(ends=False) +
     2 * pack_frame(WINDOW_UPDATE, 0, 1, word(2**31 - 1)), FLOW),
    ("8.1 trailers without END_STREAM", get(ends=False) + get(ends=False), PROTOCOL),
    ("8.2.1 upper case", request(*SLASH, ("X-TEST", "ok")), PROTOCOL),
    ("8.3 an unknown pseudo header", request(*SLASH, (":test", "ok")), PROTOCOL),
    ("8.3 a pseudo header of responses", request(*SLASH, (":status", "200")), PROTOCOL),
    ("8.1 a pseudo header in trailers", get(ends=False) + request((":method", "GET")), PROTOCOL),
    ("8.3 a pseudo header behind a field", request(("x-test", "ok"), *SLASH), PROTOCOL),
    ("8.2.2 connection: keep-alive", request(*SLASH, ("connection", "keep-alive")), PROTOCOL),
    ("8.2.2 te other than trailers", request(*SLASH, ("te", "trailers, deflate")), PROTOCOL),
    ("8.3.1 an empty path", request(*without(":path"), (":path", "")), PROTOCOL),
    ("8.3.1 no method", request(*without(":method")), PROTOCOL),
    ("8.3.1 no scheme", request(*without(":scheme")), PROTOCOL),
    ("8.3.1 no path", request(*without(":path")), PROTOCOL),
    ("8.3.1 two methods", request(*SLASH, (":method", "GET")), PROTOCOL),
    ("8.3.1 two schemes", request(*SLASH, (":scheme", "http")), PROTOCOL),
    ("8.3.1 two paths", request(*SLASH, (":path", "/")), PROTOCOL),
    ("8.5 CONNECT with a path", request((":method", "CONNECT"), (":authority", "x:1"),
                                         (":path", "/")), PROTOCOL),
    ("8.5 CONNECT without an authority", request((":method", "CONNECT")), PROTOCOL),
]  # fmt: skip

GOES_ON = [
    ("3.4 SETTINGS first, then an acknowledgement", b""),
    ("4.1 a frame of an unknown type", pack_frame(0x16, 0xFF, 0, bytes(8))),
    ("4.1 undefined flags", pack_frame(PING, 0x16, 0, b"12345678")),
    ("4.1 the reserved bit", pack_frame(PING, 0, 1 << 31, b"12345678")),
    ("4.2 the largest frame of the default", get(ends=False) + data(bytes(16384))),
    ("5.1 PRIORITY on an idle stream", pack_frame(PRIORITY, 0, 1, word(0) + b"\xff")),
    ("5.1 PRIORITY on a closed stream", get() + pack_frame(PRIORITY, 0, 1, word(0) + b"\xff")),
    ("5.1 WINDOW_UPDATE on a closed stream", get() + pack_frame(WINDOW_UPDATE, 0, 1, word(1))),
    ("5.1 RST_STREAM on a closed stream", get() + pack_frame(RST_STREAM, 0, 1, word(8))),
    ("5.5 an unknown frame between others", get(ends=False) + pack_frame(0xFF, 0, 1, b"x") +
     data(b"x")),
    ("6.1 padded DATA", get(ends=False) +
     pack_frame(DATA, PADDED | END_STREAM, 1, b"\x02hello\0\0")),
    ("6.2 padded HEADERS", pack_frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1,
                                      b"\x02" + _GET + b"\0\0")),
    ("6.2 HEADERS with a priority", get(flags=HAS_PRIORITY, before=word(0) + b"\xff")),
    ("6.5.2 an unknown setting", setting(0xFF, 1)),
    ("6.5.2 ENABLE_PUSH 0", setting(2, 0)),
    ("6.5.3 several values, the last one counts", setting(4, 100) + setting(4, 1) + get()),
    ("6.7 an answer to no PING of ours", pack_frame(PING, ACK, 0, b"invalid!")),
    ("6.8 GOAWAY, and the connection lives", pack_frame(GOAWAY, 0, 0, word(0) + word(0))),
    ("6.9.2 a window below zero", setting(4, 3) + get() + setting(4, 2)),
    ("6.10 several CONTINUATION frames", pack_frame(HEADERS, END_STREAM, 1, _GET[:2]) +
     pack_frame(CONTINUATION, 0, 1, _GET[2:3]) + rest(_GET[3:])),
    ("8.1 trailers", get(ends=False) + data(b"x", flags=0) + request(("x-test", "ok"))),
    ("8.2.2 te: trailers", request(*SLASH, ("te", "trailers"))),
    ("8.5 CONNECT", request_frame(1)),
]  # fmt: skip

# h2spec wants something else here, for the reasons in DECISIONS.md, 33.
OURS = [
    ("4.2 HEADERS above 16 KiB: we announce 1 MiB",
     request(*SLASH, *((f"x-{n}", "v" * 100) for n in range(170)))),
    ("8.1.1 content-length and DATA of a request that is answered at once",
     request(*SLASH, ("content-length", "1"), ends=False) + data(b"test")),
    ("8.1.1 … in several frames",
     request(*SLASH, ("content-length", "1"), ends=False) + data(b"te", flags=0) + data(b"st")),
]  # fmt: skip


@pytest.mark.parametrize(("said", "codes"), [row[1:] for row in BREAKS], ids=[r[0] for r in BREAKS])
def test_the_connection_is_broken(said: bytes, codes: tuple[int, ...]) -> None:
    greeting = b"" if said.startswith(b"INVALID") else HELLO
    reaction = serve(greeting + said + PINGED, answer=True)
    assert reaction.goaway == codes
    assert reaction.pongs == 0


@pytest.mark.parametrize(("said", "codes"), [row[1:] for row in RESETS], ids=[r[0] for r in RESETS])
def test_one_stream_is_reset(said: bytes, codes: tuple[int, ...]) -> None:
    assert serve(HELLO + said + PINGED, answer=False) == Reaction((), codes, 1)


@pytest.mark.parametrize("said", [row[1] for row in GOES_ON], ids=[row[0] for row in GOES_ON])
def test_it_goes_on(said: bytes) -> None:
    reaction = serve(HELLO + said + PINGED, answer=False)
    assert (reaction.goaway, reaction.reset) == ((), ())
    assert reaction.pongs >= 1


@pytest.mark.parametrize("said", [row[1] for row in OURS], ids=[row[0] for row in OURS])
def test_a_tunnels_server_differs(said: bytes) -> None:
    assert serve(HELLO + said + PINGED, answer=False) == Reaction((), (), 1)


def test_a_request_that_is_no_tunnel_is_handed_over() -> None:
    server = Session(Role.SERVER, SERVER_SETTINGS)
    (event,) = [e for e in server.receive(HELLO + get()) if isinstance(e, RequestReceived)]
    assert event.method == "GET"
