"""Received descriptors: whole, closed on exec, and closed if the message is of no use."""

from __future__ import annotations

import array
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from control.kit.descriptors import close_all, raise_limit, receive_message
from control.kit.errors import WireError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def send(sock: socket.socket, data: bytes, count: int) -> None:
    """`count` descriptors of one pipe's end beside `data`."""
    reader, writer = os.pipe()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer] * count))
    sock.sendmsg([data], [rights] if count else [])
    close_all((reader, writer))


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_they_arrive_in_order_and_no_program_that_we_start_gets_them(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    send(theirs, b"hello", 3)
    data, received = receive_message(ours, 100, 4)
    assert (data, len(received)) == (b"hello", 3)
    assert not any(os.get_inheritable(each) for each in received)
    close_all(received)


def test_a_message_without_any_has_none(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    send(theirs, b"hello", 0)
    assert receive_message(ours, 100, 4) == (b"hello", ())
    with pytest.raises(BlockingIOError):
        receive_message(ours, 100, 4)
    theirs.close()
    assert receive_message(ours, 100, 4) == (b"", ())


@pytest.mark.parametrize(("bytes_max", "descriptors_max"), [(3, 4), (100, 1)])
def test_a_message_that_was_cut_leaves_nothing_open(
    pair: tuple[socket.socket, socket.socket], bytes_max: int, descriptors_max: int
) -> None:
    ours, theirs = pair
    before = open_descriptors()
    send(theirs, b"hello", 4)
    with pytest.raises(WireError):
        receive_message(ours, bytes_max, descriptors_max)
    assert open_descriptors() == before


def test_a_process_may_open_as_many_files_as_its_host_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
    try:
        raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
