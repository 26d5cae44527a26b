"""Pieces of an answer are joined until the last one, also when nobody waits any more."""

from __future__ import annotations

import asyncio

from ztunnel.supervisor.question import Question


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
