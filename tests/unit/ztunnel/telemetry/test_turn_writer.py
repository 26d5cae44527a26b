"""Lines of a turn go out together, and wait for a reader that is slow."""

from __future__ import annotations

from control.kit.sink import LineSink
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.telemetry.turn_writer import RETRY_S, TurnWriter


class Pipe:
    """A reader that may be asleep."""

    def __init__(self) -> None:
        self.open = True
        self.received: list[bytes] = []

    def put(self, data: bytes) -> int:
        if not self.open:
            raise BlockingIOError
        self.received.append(data)
        return len(data)


def test_a_turns_lines_are_written_once_and_a_stuck_reader_is_tried_again() -> None:
    bugs: list[Served] = []
    time = FakeTime()
    reactor = Reactor(bugs.append, time)
    pipe = Pipe()
    writer = TurnWriter(reactor, LineSink(pipe.put))
    writer.put("one\n")
    writer.put("two\n")
    reactor.turn(0)
    assert pipe.received == [b"one\ntwo\n"]
    pipe.open = False
    writer.put("three\n")
    reactor.turn(0)
    pipe.open = True
    time.now_s += RETRY_S
    reactor.turn(0)
    assert pipe.received[1:] == [b"three\n"]
    assert not bugs
    reactor.close()
