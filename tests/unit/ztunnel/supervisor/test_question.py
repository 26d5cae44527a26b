"""Pieces of an answer are joined until the last one, also when nobody waits any more."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from ztunnel.ipc import IpcSocket
from ztunnel.supervisor.question import Question, WorkerProcess


def test_pieces_are_joined_until_the_last_one() -> None:
    async def run() -> None:
        question = Question("pools", asyncio.get_running_loop().create_future())
        assert not question.take({"more": True, "pools": [1]})
        assert question.take({"more": False, "pools": [2]})
        assert (await question.answer)["pools"] == [1, 2]

    asyncio.run(run())


def test_an_abandoned_question_ends_with_its_last_piece() -> None:
    async def run() -> None:
        question = Question("pools", asyncio.get_running_loop().create_future())
        question.answer.cancel()
        assert not question.take({"more": True, "pools": [1]})
        assert question.take({"pools": [2]})
        assert question.pieces == {}

    asyncio.run(run())


def test_a_worker_begins_without_questions_and_is_not_ready() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        process = cast("asyncio.subprocess.Process", None)
        worker = WorkerProcess(0, process, IpcSocket(ours))
        assert (worker.ready, worker.drained, worker.questions, worker.heard) == (
            False,
            False,
            {},
            0,
        )
