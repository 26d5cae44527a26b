"""A dialer that dials nobody: the test answers each dial."""

from __future__ import annotations

from control.model.address import Endpoint
from ztunnel.transport.dial import DialDone


class FakeDialer:
    source_not_shown = 0

    def __init__(self) -> None:
        self.dials: list[tuple[Endpoint, DialDone]] = []

    def dial(self, netns_fd: int, target: Endpoint, done: DialDone, _: object = None) -> FakeDialer:
        self.dials.append((target, done))
        return self

    def dial_app(self, *_: object, **_more: object) -> None:
        raise AssertionError("outbound dials no app of its own node")

    def abandon(self) -> None:
        self.dials.pop(0)

    def leave(self, netns_fd: int) -> None:
        pass
