"""The accounts of a connection: windows given back, streams remembered, answers bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ztunnel.hbone.pair import SMALL, Pair, data_of, frames_of
from ztunnel.hbone.core import Core
from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.events import Event, StreamEnded, StreamReset, WindowOpened
from ztunnel.hbone.frames import (
    GOAWAY,
    RST_STREAM,
    WINDOW_DEFAULT,
    WINDOW_UPDATE,
    parse_goaway,
    parse_uint32,
)
from ztunnel.hbone.limits import REPLY_BYTES_MAX, RESET_IDS_MAX
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, SERVER_SETTINGS, Role, SessionSettings
from ztunnel.hbone.states import CLOSED, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, OPEN

# -- windows -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["come", "consume", "use"]), st.integers(0, 70_000))))
def test_every_byte_is_in_one_of_three_accounts(steps: list[tuple[str, int]]) -> None:
    """The peer's, the engine's or ours to announce; and an announcement is worth its frame."""
    server = Session(Role.SERVER, SERVER_SETTINGS)
    stream = server.add(1, OPEN)
    window, connection = server.stream_window_bytes, server.receive_window
    held = announced = came = 0
    for step, size in steps:
        if step == "come":
            size = min(size, stream.receive_window)
            stream.receive_window -= size
            server.receive_window -= size
            held += size
            came += size
        elif step == "consume":
            size = min(size, held)
            server.consumed(stream, size)
            held -= size
        else:
            server.use_windows(size)
        assert stream.receive_window + held + stream.credit == window
        assert server.receive_window + held + server.credit == connection
        for kind, _, stream_id, payload in frames_of(server.take()):
            assert kind == WINDOW_UPDATE
            assert stream_id == 1, "the connection's window is far from half"
            announced += parse_uint32(payload)
        assert announced <= came
    server.reset(stream, ErrorCode.CANCEL)
    assert server.receive_window + server.credit == connection


def test_windows_open_again_in_halves_and_only_for_consumed_bytes() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(1_000))
    pair.to_server()
    assert not pair.server.outbound, "receive never re-opens"
    pair.server.consumed(far, 499)
    assert not pair.server.outbound
    pair.server.consumed(far, 1)
    assert frames_of(pair.server.outbound)[0][::2] == (WINDOW_UPDATE, far.id)
    assert pair.to_client() == [WindowOpened(near)]
    assert pair.client.room(near) == 500
    pair.server.consumed(far, 500)
    assert pair.to_client() == [], "it was open already"
    assert pair.client.room(near) == 1_000
    with pytest.raises(ValueError):
        pair.server.consumed(far, 1)


def test_the_connection_window_opens_for_all_streams_at_once() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=70_000))
    near, far = pair.tunnel()
    while room := pair.client.room(near):
        pair.client.send_data(near, bytes(room))
    assert near.send_window > 0 == pair.client.send_window
    pair.to_server()
    pair.server.consumed(far, 70_000)
    assert pair.to_client() == [WindowOpened(None)]


def test_a_reset_gives_unconsumed_bytes_back_to_the_connection() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=100_000))
    for resets in (True, False):
        near, far = pair.tunnel()
        pair.client.send_data(near, bytes(60_000))
        pair.to_server()
        pair.server.consumed(far, 1_000)
        if resets:
            pair.server.reset(far, ErrorCode.CANCEL)
        else:
            pair.client.reset(near, ErrorCode.CANCEL)
            pair.to_server()
        pair.server.consumed(far, 59_000)  # too late: counted already
        pair.to_client()
        assert pair.client.send_window >= 40_000
        assert pair.server.receive_window + pair.server.credit == 100_000


def test_dropping_an_ended_stream_gives_its_bytes_back_once() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=100_000))
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(30_000), end_stream=True)
    pair.to_server()
    pair.server.end(far)
    assert far.state is CLOSED
    pair.server.take()
    pair.server.reset(far, ErrorCode.CANCEL)
    pair.server.reset(far, ErrorCode.CANCEL)
    assert not pair.server.outbound
    assert pair.server.receive_window + pair.server.credit == 100_000


def test_no_window_is_announced_to_who_has_ended_or_gone() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(900), end_stream=True)
    pair.to_server()
    pair.server.consumed(far, 900)
    assert not pair.server.outbound
    pair = Pair(server_settings=SessionSettings(65_535, 65_535))
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(65_000))
    pair.to_server()
    pair.server.goaway(ErrorCode.INTERNAL_ERROR, drain=False)
    pair.server.take()
    pair.server.consumed(far, 65_000)
    pair.server.reset(far, ErrorCode.CANCEL)
    assert not pair.server.outbound


def test_bytes_of_a_closed_stream_may_be_consumed_later() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=100_000))
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(60_000), end_stream=True)
    pair.to_server()
    pair.server.end(far)
    pair.server.take()
    pair.server.consumed(far, 60_000)
    assert [frame[2] for frame in frames_of(pair.server.outbound)] == [0]


def test_smaller_windows_than_the_default_bind_after_the_acknowledgement() -> None:
    server = Session(Role.SERVER, SMALL)
    server.start()
    client = Session(Role.CLIENT, CLIENT_SETTINGS)
    client.start()
    near = client.request("web:80", [])
    client.send_data(near, bytes(5_000))  # it cannot know the server's 1,000 yet
    events = server.receive(client.take())
    assert data_of(events) == bytes(5_000)
    assert client.receive(server.take())[-1] is not None
    assert near.send_window == 1_000 - 5_000
    server.receive(client.take())
    (stream,) = server.streams.values()
    assert stream.receive_window == near.send_window
    server.consumed(stream, 5_000)
    assert client.receive(server.take()) == [WindowOpened(near)]
    assert client.room(near) == 1_000


def test_smaller_windows_are_kept_once_the_peer_has_used_what_it_had() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.server.use_windows(200)
    for _ in range(20):
        room = pair.client.room(near)
        assert room > 0, "whoever has taken everything lets the peer go on"
        pair.client.send_data(near, bytes(room))
        assert len(data_of(pair.to_server())) == room
        pair.server.consumed(far, room)
        assert far.receive_window + far.credit == 1_000
        pair.to_client()
    assert pair.client.room(near) == 200


def test_what_a_slow_app_holds_counts_against_the_smaller_window() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.server.use_windows(200)
    pair.client.send_data(near, bytes(1_000))
    pair.to_server()
    pair.server.consumed(far, 850)
    pair.to_client()
    assert pair.client.room(near) == 0, "150 are held: 50 more are not worth a frame yet"
    pair.server.consumed(far, 50)
    pair.to_client()
    assert pair.client.room(near) == 100


def test_large_windows_come_back_with_the_next_bytes() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.server.use_windows(200)
    pair.client.send_data(near, bytes(1_000))
    pair.to_server()
    pair.server.consumed(far, 999)
    pair.server.use_windows(1_000)
    pair.server.consumed(far, 1)
    pair.to_client()
    assert pair.client.room(near) == 1_000


# -- streams -------------------------------------------------------------------------------------


def test_an_end_of_each_half_closes_the_stream_and_forgets_it() -> None:
    for local_first in (True, False):
        core, events = Core(Role.SERVER, SERVER_SETTINGS), list[Event]()
        stream = core.add(1, OPEN)
        if local_first:
            core.end_local(stream)
        else:
            core.end_remote(stream, events)
        assert stream.state is (HALF_CLOSED_LOCAL if local_first else HALF_CLOSED_REMOTE)
        assert core.streams == {1: stream}
        if local_first:
            core.end_remote(stream, events)
        else:
            core.end_local(stream)
        assert stream.state is CLOSED
        assert core.streams == {}
        assert events == [StreamEnded(stream)]


@pytest.mark.parametrize("role", Role)
def test_a_half_that_has_ended_cannot_end_again(role: Role) -> None:
    core = Core(role, CLIENT_SETTINGS)
    with pytest.raises(AssertionError):
        core.end_local(core.add(1, HALF_CLOSED_LOCAL))
    with pytest.raises(AssertionError):
        core.end_remote(core.add(3, HALF_CLOSED_REMOTE), [])


def test_idle_ids_are_those_that_nobody_has_opened() -> None:
    client, server = Core(Role.CLIENT, CLIENT_SETTINGS), Core(Role.SERVER, SERVER_SETTINGS)
    client.next_id = 5  # it has opened 1 and 3
    server.highest_peer_id = 3
    for core in (client, server):
        assert [number for number in range(8) if not core.is_idle(number)] == [1, 3]


def test_the_last_resets_are_remembered_and_the_memory_is_bounded() -> None:
    core = Core(Role.SERVER, SERVER_SETTINGS)
    for number in range(10 * RESET_IDS_MAX):
        core.remember_reset(number)
        assert len(core.reset_ids) + len(core.reset_ids_older) <= 2 * RESET_IDS_MAX
        assert core.was_reset(number)
        assert core.was_reset(max(0, number - RESET_IDS_MAX + 1))
    assert not core.was_reset(0)


def test_breaking_a_stream_tells_the_engine_and_the_peer() -> None:
    core, events = Core(Role.SERVER, SERVER_SETTINGS), list[Event]()
    stream = core.add(1, OPEN)
    core.break_stream(stream, ErrorCode.FLOW_CONTROL_ERROR, events)
    assert events == [StreamReset(stream, ErrorCode.FLOW_CONTROL_ERROR)]
    assert stream.state is CLOSED
    assert core.was_reset(1)
    assert [frame[0] for frame in frames_of(core.outbound)] == [RST_STREAM]


def test_memory_of_finished_streams_is_not_kept() -> None:
    pair = Pair()
    for number in range(1_500):
        near, far = pair.tunnel()
        if number % 2:
            pair.client.reset(near, ErrorCode.CANCEL)
        else:
            pair.client.end(near)
            pair.server.end(far)
        pair.to_server()
        pair.to_client()
    assert pair.client.idle
    assert pair.server.idle
    assert len(pair.client.reset_ids) + len(pair.client.reset_ids_older) <= 1_024
    assert not pair.client.closed
    assert not pair.server.closed


# -- answers, and the end ------------------------------------------------------------------------


def test_answers_that_wait_are_bounded() -> None:
    core = Core(Role.SERVER, SERVER_SETTINGS)
    for _ in range(REPLY_BYTES_MAX // 1_024):
        core.reply(bytes(1_024))
    with pytest.raises(ConnectionBroken) as broken:
        core.reply(b"x")
    assert broken.value.code is ErrorCode.ENHANCE_YOUR_CALM
    assert len(core.outbound) == REPLY_BYTES_MAX + 1


def test_answers_that_an_engine_has_taken_in_its_own_way_do_not_count() -> None:
    core = Core(Role.SERVER, SERVER_SETTINGS)
    for _ in range(3 * REPLY_BYTES_MAX // 1_000):
        core.reply(bytes(1_000))
        core.outbound.clear()
    core.check_replies()


def test_a_goaway_names_the_last_stream_that_was_served() -> None:
    core = Core(Role.SERVER, SERVER_SETTINGS)
    core.last_taken_id, core.highest_peer_id = 5, 9  # 7 and 9 were refused
    core.write_goaway(ErrorCode.PROTOCOL_ERROR, b"because")
    ((kind, _, stream_id, payload),) = frames_of(core.outbound)
    assert (kind, stream_id, payload[8:]) == (GOAWAY, 0, b"because")
    assert parse_goaway(payload) == (5, ErrorCode.PROTOCOL_ERROR)


def test_closing_ends_every_stream_and_lets_nothing_out() -> None:
    core = Core(Role.CLIENT, CLIENT_SETTINGS)
    streams = [core.add(number, OPEN) for number in (1, 3)]
    assert core.send_window == WINDOW_DEFAULT
    core.close()
    assert {stream.state for stream in streams} == {CLOSED}
    assert (core.closed, core.streams, core.send_window) == (True, {}, 0)
