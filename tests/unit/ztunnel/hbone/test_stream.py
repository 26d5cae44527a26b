"""A stream in a session: each state meets each frame and each command as the table says."""

from collections.abc import Callable

import pytest

from tests.unit.ztunnel.hbone.pair import (
    CONNECT,
    Pair,
    field,
    frames_of,
    request_frame,
    server_ready,
)
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from ztunnel.hbone.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    pack_frame,
    pack_rst_stream,
    pack_settings,
    pack_window_update,
    parse_goaway,
    parse_uint32,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, Role
from ztunnel.hbone.states import (
    ASKED,
    ASKED_ENDED,
    CLOSED,
    HALF_CLOSED_LOCAL,
    HALF_CLOSED_REMOTE,
    OPEN,
    REQUESTED,
    REQUESTED_ENDED,
    Half,
    StreamState,
)
from ztunnel.hbone.stream import Stream

ENDED = END_HEADERS | END_STREAM
ANSWER = pack_frame(HEADERS, END_HEADERS, 1, b"\x88")
ANSWER_ENDED = pack_frame(HEADERS, ENDED, 1, b"\x88")


def client(received: bytes = b"", *, end: bool = False) -> Session:
    """A client that has asked, has been told `received`, and may have ended its half."""
    session = Session(Role.CLIENT, CLIENT_SETTINGS)
    session.start()
    session.receive(pack_settings([]))
    stream = session.request("10.0.0.1:80", [])
    session.receive(received)
    if end:
        session.end(stream)
    session.take()
    return session


def server(received: bytes, *, answer: bool = False, end: bool = False) -> Session:
    """A server that has been told `received`, and may have answered and ended its half."""
    session = server_ready()
    session.receive(received)
    if answer:
        session.respond(session.streams[1], 200, [], end_stream=end)
    session.take()
    return session


MADE: dict[tuple[Role, StreamState], Callable[[], Session]] = {
    (Role.CLIENT, ASKED): client,
    (Role.CLIENT, ASKED_ENDED): lambda: client(end=True),
    (Role.CLIENT, OPEN): lambda: client(ANSWER),
    (Role.CLIENT, HALF_CLOSED_LOCAL): lambda: client(ANSWER, end=True),
    (Role.CLIENT, HALF_CLOSED_REMOTE): lambda: client(ANSWER_ENDED),
    (Role.SERVER, REQUESTED): lambda: server(request_frame(1)),
    (Role.SERVER, REQUESTED_ENDED): lambda: server(request_frame(1, flags=ENDED)),
    (Role.SERVER, OPEN): lambda: server(request_frame(1), answer=True),
    (Role.SERVER, HALF_CLOSED_LOCAL): lambda: server(request_frame(1), answer=True, end=True),
    (Role.SERVER, HALF_CLOSED_REMOTE): lambda: server(request_frame(1, flags=ENDED), answer=True),
}


def made(role: Role, state: StreamState) -> tuple[Session, Stream]:
    session = MADE[role, state]()
    stream = session.streams[1]
    assert stream.state is state
    return session, stream


def shown(made: tuple[Role, StreamState]) -> str:
    return f"{made[0].value}: {made[1]}"


every_state = pytest.mark.parametrize("which", MADE, ids=map(shown, MADE))


def refusals(session: Session) -> list[int]:
    """Codes of the RST_STREAM frames that wait to be written."""
    frames = frames_of(session.outbound)
    return [parse_uint32(payload) for kind, _, _, payload in frames if kind == RST_STREAM]


def check_taken(
    session: Session,
    stream: Stream,
    events: list[Event],
    kind: type[Event],
    then: StreamState | None,
) -> None:
    """A frame made one event of `kind` and the state `then`, and had no answer."""
    assert [event.__class__ for event in events] == [kind]
    assert stream.state is then
    assert refusals(session) == []
    assert (1 in session.streams) == (then is not CLOSED)


def check_refused(session: Session, stream: Stream, events: list[Event], code: ErrorCode) -> None:
    """A frame made the session reset the stream, on both sides."""
    assert events == [StreamReset(stream, code)]
    assert stream.state is CLOSED
    assert refusals(session) == [code]
    assert session.idle
    assert not session.closed


# -- frames --------------------------------------------------------------------------------------


@every_state
def test_data(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    events = session.receive(pack_frame(DATA, 0, 1, b"words"))
    match which[1].remote:
        case Half.WAITING:
            check_refused(session, stream, events, ErrorCode.PROTOCOL_ERROR)
        case Half.OPEN:
            check_taken(session, stream, events, DataReceived, which[1])
        case Half.ENDED:
            check_refused(session, stream, events, ErrorCode.STREAM_CLOSED)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut"])
@every_state
def test_the_end(which: tuple[Role, StreamState], whole: bool) -> None:
    """The shortcut for a whole frame and the long way for one in pieces agree."""
    session, stream = made(*which)
    frame = pack_frame(DATA, END_STREAM, 1, b"")
    events = session.receive(frame if whole else frame[:5])
    events += session.receive(b"" if whole else frame[5:])
    match which[1].remote:
        case Half.WAITING:
            check_refused(session, stream, events, ErrorCode.PROTOCOL_ERROR)
        case Half.OPEN:
            check_taken(session, stream, events, StreamEnded, which[1].after_received_end)
        case Half.ENDED:
            check_refused(session, stream, events, ErrorCode.STREAM_CLOSED)


@every_state
def test_trailers(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    events = session.receive(pack_frame(HEADERS, ENDED, 1, field(b"a", b"b")))
    match which[1].remote:
        case Half.WAITING:  # an answer without a status
            check_refused(session, stream, events, ErrorCode.PROTOCOL_ERROR)
        case Half.OPEN:
            check_taken(session, stream, events, StreamEnded, which[1].after_received_end)
        case Half.ENDED:
            check_refused(session, stream, events, ErrorCode.STREAM_CLOSED)


@every_state
def test_headers_that_end_nothing(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    events = session.receive(ANSWER if which[0] is Role.CLIENT else request_frame(1))
    match which[1].remote:
        case Half.WAITING:
            after = which[1].after_received_headers
            check_taken(session, stream, events, ResponseReceived, after)
        case Half.OPEN:
            check_refused(session, stream, events, ErrorCode.PROTOCOL_ERROR)
        case Half.ENDED:
            check_refused(session, stream, events, ErrorCode.STREAM_CLOSED)


def test_an_answer_that_ends_the_stream_takes_two_steps() -> None:
    for end, then in ((False, HALF_CLOSED_REMOTE), (True, CLOSED)):
        session = client(end=end)
        stream = session.streams[1]
        check_taken(session, stream, session.receive(ANSWER_ENDED), ResponseReceived, then)


@every_state
def test_a_reset_ends_any_state_and_has_no_answer(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    events = session.receive(pack_rst_stream(1, ErrorCode.CANCEL))
    check_taken(session, stream, events, StreamReset, CLOSED)


@every_state
def test_a_window_update_and_a_priority_change_no_state(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    before = stream.send_window
    assert session.receive(pack_window_update(1, 5) + pack_frame(2, 0, 1, bytes(5))) == []
    assert (stream.state, stream.send_window) == (which[1], before + 5)


@every_state
def test_the_end_of_the_connection_ends_any_state(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    *_, failed = session.receive(pack_frame(DATA, 0, 0, b"x"))
    assert isinstance(failed, ConnectionFailed)
    assert stream.state is CLOSED
    assert session.idle


# -- commands ------------------------------------------------------------------------------------


@every_state
def test_sending_data(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    if which[1].local is Half.OPEN:
        session.send_data(stream, b"words")
        assert frames_of(session.outbound) == [(DATA, 0, 1, b"words")]
    else:
        assert session.room(stream) == 0
        with pytest.raises(ValueError):
            session.send_data(stream, b"words")
        with pytest.raises(ValueError):
            session.frame_data(stream, bytearray(14), 5)
        assert not session.outbound
    assert stream.state is which[1]


@every_state
def test_ending(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    match which[1].local:
        case Half.WAITING:
            with pytest.raises(ValueError):
                session.end(stream)
            assert (stream.state, session.outbound) == (which[1], b"")
        case Half.OPEN:
            session.end(stream)
            assert stream.state is which[1].after_sent_end
            assert frames_of(session.outbound) == [(DATA, END_STREAM, 1, b"")]
        case Half.ENDED:
            session.end(stream)
            assert (stream.state, session.outbound) == (which[1], b"")
    assert (1 in session.streams) == (stream.state is not CLOSED)


@every_state
def test_answering(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    match which[1].local:
        case Half.WAITING:
            session.respond(stream, 200, [], end_stream=False)
            assert stream.state is which[1].after_sent_headers
            assert frames_of(session.outbound) == [(HEADERS, END_HEADERS, 1, b"\x88")]
        case Half.OPEN:
            with pytest.raises(ValueError):
                session.respond(stream, 200, [], end_stream=False)
            assert (stream.state, session.outbound) == (which[1], b"")
        case Half.ENDED:
            session.respond(stream, 200, [], end_stream=False)
            assert (stream.state, session.outbound) == (which[1], b"")


def test_a_refusal_ends_our_half_with_the_answer() -> None:
    for received, then in (
        (request_frame(1), HALF_CLOSED_LOCAL),
        (request_frame(1, flags=5), CLOSED),
    ):
        session = server(received)
        stream = session.streams[1]
        session.respond(stream, 401, [], end_stream=True)
        assert stream.state is then
        assert (1 in session.streams) == (then is not CLOSED)


@every_state
def test_resetting(which: tuple[Role, StreamState]) -> None:
    session, stream = made(*which)
    session.reset(stream, ErrorCode.CANCEL)
    session.reset(stream, ErrorCode.CANCEL)
    assert stream.state is CLOSED
    assert refusals(session) == [ErrorCode.CANCEL]
    assert session.idle


# -- ids without a stream ------------------------------------------------------------------------


def reset_by_us(role: Role) -> Session:
    session, stream = made(role, OPEN)
    session.reset(stream, ErrorCode.CANCEL)
    session.take()
    return session


def ended_by_both(role: Role) -> Session:
    session, stream = made(role, OPEN)
    session.receive(pack_frame(DATA, END_STREAM, 1, b""))
    session.end(stream)
    session.take()
    return session


def reset_by_peer(role: Role) -> Session:
    session, _ = made(role, OPEN)
    session.receive(pack_rst_stream(1, ErrorCode.CANCEL))
    return session


LATE = {
    "HEADERS": pack_frame(HEADERS, END_HEADERS, 1, CONNECT),
    "DATA": pack_frame(DATA, 0, 1, b"late"),
    "WINDOW_UPDATE": pack_window_update(1, 1),
    "RST_STREAM": pack_rst_stream(1, ErrorCode.CANCEL),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("frame", LATE)
def test_frames_under_way_to_a_stream_that_we_reset_are_ignored(role: Role, frame: str) -> None:
    session = reset_by_us(role)
    before = session.receive_window + session.credit
    assert session.receive(LATE[frame]) == []
    assert not session.closed
    assert refusals(session) == []
    assert session.receive_window + session.credit == before


@pytest.mark.parametrize("closed", [ended_by_both, reset_by_peer])
@pytest.mark.parametrize("role", Role)
def test_frames_for_a_closed_stream(role: Role, closed: Callable[[Role], Session]) -> None:
    for frame in ("WINDOW_UPDATE", "RST_STREAM"):
        session = closed(role)
        assert session.receive(LATE[frame]) == []
        assert not session.outbound
    session = closed(role)
    assert session.receive(LATE["DATA"]) == []
    assert refusals(session) == [ErrorCode.STREAM_CLOSED]
    session = closed(role)
    events = session.receive(LATE["HEADERS"])
    if role is Role.SERVER:
        assert [event.__class__ for event in events] == [ConnectionFailed]
        _, _, _, payload = frames_of(session.outbound)[-1]
        assert parse_goaway(payload) == (1, ErrorCode.STREAM_CLOSED)
    else:
        assert events == []
        assert not session.closed


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("frame", LATE)
def test_frames_for_a_stream_that_was_never_opened(role: Role, frame: str) -> None:
    session, _ = made(role, OPEN)
    data = bytearray(LATE[frame])
    data[8] = 3
    (event,) = session.receive(data)
    if frame == "HEADERS" and role is Role.SERVER:
        assert isinstance(event, RequestReceived)
        assert event.stream.state is REQUESTED
    else:
        assert isinstance(event, ConnectionFailed)
        assert event.code == ErrorCode.PROTOCOL_ERROR
        assert frames_of(session.outbound)[-1][0] == GOAWAY


# -- the record ----------------------------------------------------------------------------------


def test_a_shut_stream_is_closed_whatever_it_was() -> None:
    for state in (ASKED, OPEN, HALF_CLOSED_LOCAL):
        stream = Stream(1, state, 0, 0)
        stream.shut()
        assert stream.state is CLOSED


def test_a_stream_shows_its_number_and_its_halves() -> None:
    near, far = Pair().tunnel()
    assert repr(near) == repr(far) == "Stream(1, local open, remote open)"
