"""A worker as the supervisor sees it, and questions that it has not answered to their end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ztunnel.ipc import IpcSocket, merge_answer
from ztunnel.supervisor.child import Forked


@dataclass(slots=True)
class Question:
    """A question to a worker, and the pieces of its answer so far."""

    what: str
    answer: asyncio.Future[dict[str, Any]]
    pieces: dict[str, Any] = field(default_factory=dict)

    def take(self, piece: dict[str, Any]) -> bool:
        """Join a piece to the answer; True when it was the last one."""
        if not self.answer.done():
            merge_answer(self.pieces, piece)
        if piece.get("more"):
            return False
        if not self.answer.done():
            self.answer.set_result(self.pieces)
        return True


@dataclass(slots=True)
class WorkerProcess:
    """One running process and its pipe."""

    number: int
    process: Forked
    pipe: IpcSocket
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    ready: bool = False
    drained: bool = False
    heard: int = 0  # times that it has said something
    questions: dict[int, Question] = field(default_factory=dict)
