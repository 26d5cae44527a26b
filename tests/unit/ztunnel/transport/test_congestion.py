"""Pacing is taken off what is near and paced, and off nothing else."""

from __future__ import annotations

import socket
from struct import pack_into

import pytest

from ztunnel.transport.congestion import NEAR_US_MAX, UNPACED, is_near, unpace


class Fake:
    """A socket's answers about itself, and the options that it was given."""

    def __init__(self, name: bytes, rtt_us: int) -> None:
        self.name = name
        info = bytearray(232)
        pack_into("I", info, 148, rtt_us)
        self.info = bytes(info)

    def getsockopt(self, _level: int, option: int, size: int) -> bytes:
        answer = self.name.ljust(16, b"\0") if option == socket.TCP_CONGESTION else self.info
        return answer[:size]

    def setsockopt(self, _level: int, option: int, value: bytes) -> None:
        assert option == socket.TCP_CONGESTION
        self.name = value


@pytest.mark.parametrize(
    ("name", "rtt_us", "then"),
    [
        (b"bbr", 40, UNPACED),
        (b"bbr", NEAR_US_MAX, UNPACED),
        (b"bbr", NEAR_US_MAX + 1, b"bbr"),
        (b"bbr", 0, b"bbr"),
        (b"cubic", 40, b"cubic"),
        (b"dctcp", 40, b"dctcp"),
    ],
)
def test_only_what_is_near_and_paced_changes(name: bytes, rtt_us: int, then: bytes) -> None:
    sock = Fake(name, rtt_us)
    unpace(sock)  # type: ignore[arg-type]  # only what this function asks a socket for
    assert sock.name == then


def test_a_short_answer_of_an_old_kernel_says_nothing() -> None:
    assert not is_near(bytes(104))


def test_what_is_not_tcp_is_left_alone() -> None:
    ours, theirs = socket.socketpair()
    unpace(ours)
    ours.send(b"x")
    assert theirs.recv(1) == b"x"
    ours.close()
    theirs.close()
