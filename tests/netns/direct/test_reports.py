"""Reports of direct connections: opened, closed, failed, lost."""

from __future__ import annotations

import ctypes
import select
import socket

import pytest

from agent.datapath.flows import parse_record
from agent.datapath.ring import record_bytes
from bpf import layout
from bpf.layout import (
    FLOWS_UNREAD_MAX,
    FlowEvent,
    Hint,
)
from control.model.address import Endpoint, parse_address
from tests.support.kernel.direct_bed import (
    CLIENT4,
    GENERATION,
    PORT,
    SERVER4,
    DirectBed,
    destination_and_hint,
    direct_bed,
    now_ns,
)
from tests.support.kernel.netns import eventually


def read_all(sock: socket.socket, bytes_wanted: int) -> None:
    while bytes_wanted > 0:
        read = len(sock.recv(bytes_wanted))
        assert read
        bytes_wanted -= read


def test_flow_events_tell_who_and_how_much(pair: DirectBed) -> None:
    pair.open()
    started = now_ns()
    with pair.dial() as dialled, pair.app.accept()[0] as accepted:
        record = pair.next_record()
        raw = FlowEvent.from_buffer_copy(record)
        assert raw.generation == GENERATION
        assert started <= raw.opened_ns <= now_ns()
        opened = parse_record(record)
        assert not opened.is_closed
        assert (opened.source, opened.destination) == (pair.client_id, pair.server_id)
        assert opened.client == Endpoint(parse_address(CLIENT4), dialled.getsockname()[1])
        assert opened.target == opened.original == Endpoint(parse_address(SERVER4), PORT)
        assert (opened.sent, opened.received) == (0, 0)
        assert opened.srtt_us > 0
        dialled.sendall(b"x" * 1000)
        read_all(accepted, 1000)
        accepted.sendall(b"y" * 300_000)
        read_all(dialled, 300_000)
    closed = pair.next_flow()
    assert (closed.is_closed, closed.id, closed.error) == (True, opened.id, "")
    assert (closed.sent, closed.received) == (1000, 300_000)
    assert 0 < closed.age_s < (now_ns() - started) / 1e9
    assert pair.no_more_flows()


def test_a_refused_connect_is_told_and_leaves_nothing(pair: DirectBed) -> None:
    pair.open()
    pair.app.close()
    with pytest.raises(ConnectionRefusedError):
        pair.dial()
    failed = pair.next_flow()
    assert (failed.error, failed.sent, failed.received) == ("failed", 0, 0)
    assert failed.target == Endpoint(parse_address(SERVER4), PORT)
    assert pair.used("vouched") == 0
    pair.assert_captured()  # the tunnel tries next, who knows why


def test_a_socket_that_failed_directly_is_captured_like_any_other(pair: DirectBed) -> None:
    pair.open()
    pair.app.close()
    with pair.client.socket() as sock:
        sock.settimeout(None)  # a refused non-blocking socket cannot connect again at once
        with pytest.raises(ConnectionRefusedError):
            sock.connect((SERVER4, PORT))
        assert pair.next_flow().error == "failed"
        sock.connect((SERVER4, PORT))
        with pair.at_client.outbound.accept()[0] as accepted:
            assert destination_and_hint(accepted) == ((SERVER4, PORT), Hint.NONE)
    assert pair.counter("direct_chosen") == 1
    assert pair.no_more_flows()


def test_a_socket_that_was_disconnected_and_listens_tells_no_second_end(pair: DirectBed) -> None:
    pair.open()
    with pair.dial() as sock, pair.app.accept()[0]:
        assert not pair.next_flow().is_closed
        disconnect(sock)
        closed = pair.next_flow()
        assert (closed.is_closed, closed.error) == (True, "aborted")
        sock.listen()
    assert pair.no_more_flows()


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC), which Python cannot say."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), bytes(16), 16) == 0


def test_ends_are_told_for_what_they_are(pair: DirectBed) -> None:
    pair.open()
    sock, accepted = pair.dial(), pair.app.accept()[0]
    sock.sendall(b"question")
    sock.shutdown(socket.SHUT_WR)
    read_all(accepted, 8)
    accepted.sendall(b"answer")
    accepted.close()
    read_all(sock, 6)
    assert sock.recv(1) == b""
    sock.close()
    assert not pair.next_flow().is_closed
    polite = pair.next_flow()
    assert (polite.error, polite.sent, polite.received) == ("", 8, 6)
    sock, accepted = pair.dial(), pair.app.accept()[0]
    sock.sendall(b"never read")
    readable = select.poll()  # select() takes no descriptor above 1,023
    readable.register(accepted, select.POLLIN)
    assert readable.poll(5_000)
    accepted.close()  # with data unread: a reset
    assert not pair.next_flow().is_closed
    rude = pair.next_flow()
    assert (rude.error, rude.sent) == ("aborted", 10)
    sock.close()


def test_nothing_goes_direct_while_the_reader_is_far_behind(pair: DirectBed) -> None:
    pair.open()
    room = FLOWS_UNREAD_MAX // record_bytes(ctypes.sizeof(FlowEvent))
    pair.app.settimeout(None)
    for _ in range(room // 2):  # two events each
        pair.dial().close()
        pair.app.accept()[0].close()
    eventually(lambda: pair.counter("flow_told") >= room - 1)
    assert pair.counter("direct_reader_behind") == 0
    pair.dial().close()
    pair.app.accept()[0].close()
    eventually(lambda: pair.counter("flow_told") >= room + 1)
    pair.assert_captured()
    assert pair.counter("direct_reader_behind") == 1
    while pair.tables.read_flows(100):
        pass
    pair.assert_direct()


def test_events_that_find_no_room_are_counted_and_break_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = layout.MAPS["flows"]._replace(max_entries=4096)
    monkeypatch.setitem(layout.MAPS, "flows", small)
    with direct_bed() as pair:
        pair.open()
        for _ in range(40):
            pair.assert_direct()
        eventually(lambda: pair.counter("flow_told") + pair.counter("flow_lost") == 80)
        lost = pair.counter("flow_lost")
        assert lost >= 80 - 4096 // 128
        (usage,) = (use for use in pair.bed.node.usage() if use.name == "flows")
        assert (usage.max, usage.drops) == (4096, lost)
        assert len(pair.tables.read_flows(100)) == 80 - lost
        pair.assert_direct()
