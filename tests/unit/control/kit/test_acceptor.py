"""Accepting: in turn, from any family, and on when there was no descriptor for a while."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from control.kit import acceptor
from control.kit.acceptor import UNIX, Acceptor, let_go
from control.kit.http import bind
from control.kit.seats import Source


class Listener(socket.socket):
    """A listener that has no descriptors to give at first."""

    failures = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def arrivals(listener: socket.socket, count: int, dial: object) -> list[Source]:
    found: list[Source] = []
    done = asyncio.Event()

    def arrived(sock: socket.socket, source: Source) -> None:
        found.append(source)
        let_go(sock)
        if len(found) == count:
            done.set()

    made = Acceptor(listener, arrived)
    clients = []
    for _ in range(count):
        clients.append(socket.socket(listener.family))
        clients[-1].setblocking(False)
        assert clients[-1].connect_ex(dial) in (0, errno.EINPROGRESS)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await done.wait()
    made.close()
    for each in clients:
        each.close()
    return found


def test_more_than_one_turn_takes_them_all() -> None:
    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        count = acceptor.ACCEPTS_AT_ONCE * 2 + 5
        found = await arrivals(listener, count, listener.getsockname())
        assert found == [Source("127.0.0.1", "127.0.0.1")] * count
        assert listener.fileno() < 0

    asyncio.run(scenario())


def test_a_unix_socket_has_one_source(tmp_path: Path) -> None:
    async def scenario() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        assert await arrivals(listener, 3, str(tmp_path / "s")) == [UNIX] * 3

    asyncio.run(scenario())


def test_no_descriptor_is_a_pause_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "NO_DESCRIPTOR_S", 0.01)

    async def scenario() -> None:
        listener = Listener()
        listener.bind(("127.0.0.1", 0))
        assert len(await arrivals(listener, 2, listener.getsockname())) == 2

    asyncio.run(scenario())


def test_all_addresses_are_those_of_both_families() -> None:
    """The kubelet asks a pod's IPv4 address, whatever the process listens on."""
    with bind("[::]:0") as door:
        port = door.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=5):
                pass
