"""Questions under way: their answers are made and sent a share each turn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from ztunnel.ipc import merge_answer
from ztunnel.loop.reactor import Reactor
from ztunnel.worker.answers import Piece

# A turn's share: connections that are served in the same turn wait for it.
TURN_S: Final = 0.001
# The supervisor asks a handful at a time; more are answered with nothing.
QUESTIONS_MAX: Final = 64


class Answering:
    """Answers in the order of the questions, each in as many frames as it takes turns."""

    def __init__(
        self,
        reactor: Reactor,
        send: Callable[[dict[str, Any]], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._send = send
        self._monotonic_s = monotonic_s
        self._waiting: deque[tuple[int, Iterator[Piece]]] = deque()

    def begin(self, number: int, pieces: Iterator[Piece]) -> None:
        if len(self._waiting) >= QUESTIONS_MAX:
            self._send({"id": number, "more": False, "error": "too many questions"})
            return
        self._waiting.append((number, pieces))
        if len(self._waiting) == 1:  # else the next turn goes on with those before it
            self._reactor.serve(self, self.on_again)

    def on_again(self) -> None:
        due_s = self._monotonic_s() + TURN_S
        while self._waiting:
            number, pieces = self._waiting[0]
            answer: dict[str, Any] = {"id": number, "more": True}
            for piece in pieces:
                merge_answer(answer, piece)
                if self._monotonic_s() >= due_s:
                    break
            else:
                answer["more"] = False
                self._waiting.popleft()
            self._send(answer)
            if self._monotonic_s() >= due_s:
                break
        if self._waiting:
            self._reactor.again(self)

    def on_bug(self) -> None:
        """Give the question up that raised; the others are answered."""
        if self._waiting:
            number, _ = self._waiting.popleft()
            self._send({"id": number, "more": False, "error": "internal error"})
        if self._waiting:
            self._reactor.again(self)
