"""The first frames: READY goes out, CONFIG comes in, and nothing is served without it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator

import pytest

from control.kit.errors import WireError
from ztunnel.ipc import FrameKind, IpcSocket, encode_frame, encode_json
from ztunnel.worker.process import main, receive_settings, start


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, IpcSocket]]:
    """The supervisor's end, and the worker's channel."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    ours, theirs = socket.socketpair()
    channel = IpcSocket(theirs)
    yield ours, channel
    ours.close()
    channel.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def config(**values: object) -> bytes:
    return encode_frame(FrameKind.CONFIG, encode_json(values))


def test_settings_come_first_and_what_follows_is_kept(
    ends: tuple[socket.socket, IpcSocket],
) -> None:
    ours, channel = ends
    ours.sendall(config(node="n1") + encode_frame(FrameKind.QUERY, b"{}"))
    received = receive_settings(channel)
    assert received is not None
    settings, frames = received
    assert settings.engine.node == "n1"
    assert [frame.kind for frame in frames] == [FrameKind.QUERY]


def test_settings_in_pieces_are_waited_for(ends: tuple[socket.socket, IpcSocket]) -> None:
    ours, channel = ends
    data = config(node="n1")
    ours.sendall(data[:3])
    assert channel.receive() == []
    ours.sendall(data[3:])
    assert receive_settings(channel) is not None


@pytest.mark.parametrize("data", [encode_frame(FrameKind.POD_DELETE, b"{}"), config(worker="x")])
def test_another_first_frame_is_an_error(
    ends: tuple[socket.socket, IpcSocket], data: bytes
) -> None:
    ours, channel = ends
    ours.sendall(data)
    with pytest.raises(WireError):
        receive_settings(channel)


def test_without_a_supervisor_there_is_no_worker(ends: tuple[socket.socket, IpcSocket]) -> None:
    ours, channel = ends
    ours.shutdown(socket.SHUT_WR)
    assert start(channel, 2) is None
    assert IpcSocket(ours).receive() is not None, "READY was said before"


def test_nonsense_makes_no_worker(ends: tuple[socket.socket, IpcSocket]) -> None:
    ours, channel = ends
    ours.sendall(encode_frame(FrameKind.DRAIN, b"{}"))
    assert start(channel, 2) is None


def test_a_started_worker_has_its_settings(ends: tuple[socket.socket, IpcSocket]) -> None:
    ours, channel = ends
    ours.sendall(config(worker=5))
    lines = os.open(os.devnull, os.O_WRONLY)
    worker = start(channel, lines)
    assert worker is not None
    assert worker.engine.config.worker == 5
    worker.reactor.close()
    os.close(lines)


@pytest.mark.parametrize("arguments", [[], ["--fd"], ["--fd", "x"], ["--fd", "1", "2"]])
def test_other_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "usage" in capsys.readouterr().err
