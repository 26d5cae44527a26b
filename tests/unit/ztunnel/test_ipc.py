from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from control.kit.errors import WireError
from ztunnel import ipc
from ztunnel.ipc import Frame, FrameKind, FrameParser, IpcOverflow, IpcSocket, encode_frame
from ztunnel.mesh.entries import Entry, Op, chunks, decode_entries, encode_entries


@pytest.fixture
def pair() -> Iterator[tuple[IpcSocket, IpcSocket]]:
    left, right = socket.socketpair()
    ends = IpcSocket(left), IpcSocket(right)
    yield ends
    for end in ends:
        end.close()


def test_frames_come_out_whole_however_they_were_cut() -> None:
    stream = encode_frame(FrameKind.CONFIG, b'{"a":1}') + encode_frame(FrameKind.READY, b"")
    for size in (1, 2, 5, 7, len(stream)):
        parser = FrameParser()
        frames: list[Frame] = []
        for start in range(0, len(stream), size):
            frames += parser.feed(stream[start : start + size])
        assert [each.kind for each in frames] == [FrameKind.CONFIG, FrameKind.READY]
        assert frames[0].json() == {"a": 1}


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("!IBB", ipc.FRAME_BYTES_MAX + 1, FrameKind.READY, 0),
        struct.pack("!IBB", 0, 200, 0),
        struct.pack("!IBB", 0, FrameKind.POD_ADD, ipc.DESCRIPTORS_MAX + 1),
        struct.pack("!IBB", 0, FrameKind.POD_ADD, 1),
    ],
)
def test_nonsense_ends_the_connection(head: bytes) -> None:
    with pytest.raises(WireError):
        FrameParser().feed(head)


def test_json_must_be_an_object() -> None:
    for payload in (b"[1]", b"{", b"\xff"):
        with pytest.raises(WireError):
            Frame(FrameKind.CONFIG, payload).json()


def test_descriptors_travel_with_their_own_frame(pair: tuple[IpcSocket, IpcSocket]) -> None:
    left, right = pair
    readers = []
    for number in range(3):
        reader, writer = os.pipe()
        readers.append(reader)
        left.send(FrameKind.LOG_LEVEL)
        left.send_json(FrameKind.POD_ADD, {"uid": str(number)}, [writer])
        os.close(writer)
    frames: list[Frame] = []
    while len(frames) < 6:
        frames += right.receive() or []
    for number, frame in enumerate(each for each in frames if each.kind is FrameKind.POD_ADD):
        os.write(frame.descriptors[0], b"x")
        frame.close()
        assert frame.json() == {"uid": str(number)}
        assert os.read(readers[number], 2) == b"x"
        os.close(readers[number])


def test_a_large_frame_waits_in_the_buffer_and_arrives(pair: tuple[IpcSocket, IpcSocket]) -> None:
    left, right = pair
    body = os.urandom(1_500_000)
    left.send(FrameKind.RESOURCES, body)
    assert left.wants_write
    frames: list[Frame] = []
    while not frames:
        frames += right.receive() or []
        left.flush()
    assert frames[0].payload == body
    assert (left.wants_write, left.pending_bytes) == (False, 0)


def test_a_peer_that_never_reads_is_an_error(
    pair: tuple[IpcSocket, IpcSocket],
) -> None:
    left, _ = pair
    for _ in range(4):
        left.send(FrameKind.RESOURCES, bytes(ipc.FRAME_BYTES_MAX))
    with pytest.raises(IpcOverflow):
        left.send(FrameKind.RESOURCES, bytes(ipc.FRAME_BYTES_MAX))


def test_the_end_is_told_from_nothing_yet(pair: tuple[IpcSocket, IpcSocket]) -> None:
    left, right = pair
    assert right.receive() == []
    left.close()
    assert right.receive() is None


def test_resources_round_trip_in_bounded_chunks() -> None:
    entries = [Entry(Op.ADDRESS, f"name/{number}", bytes(number)) for number in range(1000)]
    entries.append(Entry(Op.SNAPSHOT))
    payloads = list(chunks(entries))
    assert [each for payload in payloads for each in decode_entries(payload)] == entries
    assert len(payloads) > 7


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 8, 11])
def test_a_cut_entry_is_refused(cut: int) -> None:
    payload = encode_entries([Entry(Op.POLICY, "ns/p", b"body")])
    with pytest.raises(WireError):
        decode_entries(payload[:-cut])


def test_an_unknown_op_is_refused() -> None:
    with pytest.raises(WireError):
        decode_entries(b"\x63" + encode_entries([Entry(Op.POLICY, "n", b"")])[1:])
