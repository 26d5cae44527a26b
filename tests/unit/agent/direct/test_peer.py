"""One ztunnel's connection: whole lines in, a bounded buffer out."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from agent.direct.peer import (
    OUT_BYTES_MAX,
    DirectPeer,
    PeerGone,
    PeerRefused,
    PeerSlow,
    check_credentials,
    credentials,
)
from control.kit.errors import WireError
from control.wire.direct import LINE_BYTES_MAX


@pytest.fixture
def ends() -> Iterator[tuple[DirectPeer, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield DirectPeer(1, os.getpid(), ours), theirs


def test_lines_are_put_together_from_pieces(ends: tuple[DirectPeer, socket.socket]) -> None:
    peer, theirs = ends
    theirs.sendall(b'{"a"')
    assert list(peer.lines()) == []
    theirs.sendall(b":1}\n\n{}\nrest")
    assert list(peer.lines()) == [b'{"a":1}', b"", b"{}"]
    assert peer.is_drained()


@pytest.mark.parametrize("data", [b"x" * (LINE_BYTES_MAX + 1), b"x" * (LINE_BYTES_MAX + 1) + b"\n"])
def test_a_line_has_a_bound(ends: tuple[DirectPeer, socket.socket], data: bytes) -> None:
    peer, theirs = ends
    theirs.sendall(data)
    with pytest.raises(WireError):
        list(peer.lines())


def test_the_end_is_not_mistaken_for_silence(ends: tuple[DirectPeer, socket.socket]) -> None:
    peer, theirs = ends
    assert peer.is_drained()
    theirs.close()
    assert not peer.is_drained()
    with pytest.raises(PeerGone):
        list(peer.lines())


def test_what_the_socket_does_not_take_is_sent_later(
    ends: tuple[DirectPeer, socket.socket],
) -> None:
    peer, theirs = ends
    line = b"x" * 65535 + b"\n"

    async def scenario() -> int:
        for _ in range(16):
            peer.send(line)
        received = 0
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            while received < 16 * len(line):
                received += len(await loop.sock_recv(theirs, 1 << 20))
        return received

    assert asyncio.run(scenario()) == 16 * len(line)


def test_a_peer_that_does_not_read_is_given_up(ends: tuple[DirectPeer, socket.socket]) -> None:
    peer, _ = ends

    async def scenario() -> None:
        peer.send(bytes(OUT_BYTES_MAX))
        with pytest.raises(PeerSlow, match="unread"):
            peer.send(bytes(OUT_BYTES_MAX))

    asyncio.run(scenario())


def test_only_root_and_we_may_be_a_ztunnel(ends: tuple[DirectPeer, socket.socket]) -> None:
    _, theirs = ends
    assert credentials(theirs) == (os.getpid(), os.getuid())
    check_credentials(1, 0)
    check_credentials(1, os.getuid())
    with pytest.raises(PeerRefused, match="may not be a ztunnel"):
        check_credentials(1, os.getuid() + 1)
    with pytest.raises(PeerRefused, match="another pid namespace"):
        check_credentials(0, 0)
