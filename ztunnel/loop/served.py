"""Roles of those that the reactor calls."""

from __future__ import annotations

from typing import Protocol


class Served(Protocol):
    def on_bug(self) -> None:
        """Release everything at once: serving this item raised."""


class Handler(Served, Protocol):
    def on_ready(self, events: int) -> None:
        """The descriptor became readable, writable or ended (epoll's bits)."""


class Resumable(Served, Protocol):
    def on_again(self) -> None:
        """Called in the next turn, on request."""


class Flushable(Served, Protocol):
    def flush(self) -> None:
        """Called at the end of a turn in which output was added."""


class Closable(Protocol):
    def fileno(self) -> int: ...

    def close(self) -> None: ...
