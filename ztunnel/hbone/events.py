"""Events of a session, for its engine; plain records.

They are not frozen: a frozen dataclass takes three times as long to make, and a frame makes one.
"""

from dataclasses import dataclass
from typing import ClassVar

from ztunnel.hbone.stream import Stream

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class RequestReceived:
    """A peer asks for a tunnel. `ended`: it has closed its half already."""

    stream: Stream
    method: str
    authority: str
    headers: Headers
    ended: bool


@dataclass(slots=True)
class ResponseReceived:
    """The peer's final answer to a request; interim ones (1xx) make no event."""

    stream: Stream
    status: int
    headers: Headers
    ended: bool


class DataReceived:
    """A piece of payload. `data` is a view of the buffer that was received: copy it to keep it."""

    # Written out, because mypyc cannot make a dataclass with a memoryview.
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
    """Both halves are closed. Drop bytes not delivered yet: their window has been given back."""

    stream: Stream
    code: int


@dataclass(slots=True)
class WindowOpened:
    """A send window is open again: that of `stream`, or the connection's if it is None."""

    stream: Stream | None


@dataclass(slots=True)
class PeerSettingsChanged:
    """SETTINGS came: the peer may allow more streams, or other frames."""


@dataclass(slots=True)
class PingAcknowledged:
    """An answer to a PING. Compare `payload`: the peer can send it unasked."""

    payload: bytes


@dataclass(slots=True)
class GoAwayReceived:
    """The peer wants no new streams, and resets ours above `last_stream_id`."""

    last_stream_id: int
    code: int


@dataclass(slots=True)
class ConnectionFailed:
    """The last event: our GOAWAY is in `outbound`, and nothing is read any more."""

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
