"""Lines that wait for a reader: whole, in order, bounded; and never waiting for it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from control.kit.sink import CHUNK_BYTES_MAX, LineSink, Put, never_waiting


def drain(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while piece := os.read(descriptor, 1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return data


def test_a_full_pipe_does_not_hold_the_writer_and_loses_nothing_below_the_bound() -> None:
    reader, writer = os.pipe()
    sink = LineSink(never_waiting(writer), waiting_bytes_max=200_000)
    lines = [f"{number:06d} {'x' * 300}\n" for number in range(1000)]
    expected = "".join(lines[:650]).encode()
    for line in lines:
        sink.write(line)
        sink.flush()
    assert sink.dropped > 0
    received = b""
    while sink.waiting_bytes:
        received += drain(reader)
        sink.flush()
    received += drain(reader)
    assert received.startswith(expected)
    assert received.count(b"\n") + sink.dropped == len(lines)
    assert os.get_blocking(writer), "others share the descriptor"
    os.close(reader)
    os.close(writer)


def test_chunks_are_whole_lines() -> None:
    chunks: list[bytes] = []

    def put(data: bytes) -> int:
        chunks.append(data)
        return len(data)

    sink = LineSink(put)
    for _ in range(100):
        sink.write("y" * 150 + "\n")
    sink.write_all(["x" * 150 + "\n"] * 5)
    sink.write_all(["w" * 150 + "\n"] * 100)
    sink.write("z" * 9000 + "\n")
    sink.flush()
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert all(len(chunk) <= CHUNK_BYTES_MAX for chunk in chunks[:-1])
    assert sink.waiting_bytes == 0


def test_several_lines_that_are_dropped_are_counted_as_several() -> None:
    sink = LineSink(len, waiting_bytes_max=10)
    sink.write_all(["a\n", "b\n"])
    sink.write_all(["c" * 5 + "\n", "d\n"])
    assert (sink.waiting_bytes, sink.dropped) == (4, 2)


def test_a_partial_write_goes_on_where_it_stopped() -> None:
    received: list[bytes] = []
    sizes = iter([3, 0, 100])

    def put(data: bytes) -> int:
        received.append(data[: next(sizes)])
        return len(received[-1])

    sink = LineSink(put)
    sink.write("abcdef\n")
    sink.flush()
    sink.flush()
    sink.flush()
    assert b"".join(received) == b"abcdef\n"
    assert sink.waiting_bytes == 0


def test_a_reader_that_is_gone_costs_the_lines_only() -> None:
    def put(data: bytes) -> int:
        raise OSError(errno.EPIPE, "gone")

    sink = LineSink(put)
    sink.write("a\n")
    sink.write("b\n")
    sink.flush()
    assert (sink.dropped, sink.waiting_bytes) == (2, 0)


def fill(put: Put) -> None:
    while True:
        put(b"x" * 65536)


def test_a_socket_and_a_file(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    put = never_waiting(ours.fileno())
    ours.setblocking(True)
    with pytest.raises(BlockingIOError):
        fill(put)
    assert ours.getblocking()
    with (tmp_path / "log").open("wb") as file:
        file.write(b"before ")
        file.flush()
        assert never_waiting(file.fileno())(b"ours ") == 5
        file.write(b"after")
    assert (tmp_path / "log").read_bytes() == b"before ours after"
    ours.close()
    theirs.close()
