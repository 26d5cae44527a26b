"""What a session has to tell its engine; plain records, made once per occurrence.

Not frozen: a frozen dataclass costs three times as much to make, and one is made for every frame.
"""

from dataclasses import dataclass
from typing import ClassVar

from ztunnel.hbone.stream import Stream

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class RequestReceived:
    stream: Stream
    method: str
    authority: str
    headers: Headers
    ended: bool


@dataclass(slots=True)
class ResponseReceived:
    stream: Stream
    status: int
    headers: Headers
    ended: bool


class DataReceived:
    """`data` looks into the caller's buffer: valid until the next `receive`."""

    # Written out: mypyc finds no memoryview when it makes a dataclass.
    __match_args__: ClassVar = ("stream", "data")
    __slots__ = ("data", "stream")

    def __init__(self, stream: Stream, data: memoryview) -> None:
        self.stream = stream
        self.data = data


@dataclass(slots=True)
class StreamEnded:
    """The peer closed its half."""

    stream: Stream


@dataclass(slots=True)
class StreamReset:
    """Both halves are closed; undelivered bytes should be dropped, their window is given back."""

    stream: Stream
    code: int


@dataclass(slots=True)
class WindowOpened:
    """A send window went from closed to open; None is the connection's."""

    stream: Stream | None


@dataclass(slots=True)
class PeerSettingsChanged:
    pass


@dataclass(slots=True)
class PingAcknowledged:
    payload: bytes


@dataclass(slots=True)
class GoAwayReceived:
    last_stream_id: int
    code: int


@dataclass(slots=True)
class ConnectionFailed:
    """The last event: the GOAWAY is in `outbound`, nothing is read any more."""

    code: int
    reason: str


Event = (
    RequestReceived
    | ResponseReceived
    | DataReceived
    | StreamEnded
    | StreamReset
    | WindowOpened
    | PeerSettingsChanged
    | PingAcknowledged
    | GoAwayReceived
    | ConnectionFailed
)
