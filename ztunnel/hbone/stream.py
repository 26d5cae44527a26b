"""One tunnel of a connection as a record: its state and its two windows. Decides nothing."""

from typing import Any

from ztunnel.hbone.states import CLOSED, StreamState


class Stream:
    """One stream, made by `Session`. The engine reads it and keeps its own side in `owner`."""

    __slots__ = (
        "credit",
        "ending",
        "id",
        "owner",
        "receive_window",
        "released",
        "send_window",
        "state",
    )

    def __init__(
        self, stream_id: int, state: StreamState, send_window: int, receive_window: int
    ) -> None:
        self.id = stream_id
        self.state = state
        self.owner: Any = None
        self.send_window = send_window
        # The bytes that the peer may still send. With `credit` and the bytes that the engine has
        # not reported as consumed they always add up to the window that we advertise.
        self.receive_window = receive_window
        self.credit = 0
        # Not part of the state: the DATA being handed over is the last of the stream; and the
        # connection's window no longer waits for the stream's bytes.
        self.ending = False
        self.released = False

    def shut(self) -> None:
        """Close both halves: no frame goes in or out any more. An owner that has not heard of it
        yet, because the news is in the same read as its answer, meets a closed window."""
        self.state = CLOSED
        self.send_window = 0

    def __repr__(self) -> str:
        return f"Stream({self.id}, {self.state})"
