"""One tunnel of a connection: its two half-closes and its two windows; a record, no decisions."""

from typing import Any


class Stream:
    """Made by `Session`; the engine reads it and hangs its own state on `owner`."""

    __slots__ = (
        "answered",
        "credit",
        "ending",
        "id",
        "local_closed",
        "owner",
        "receivable",
        "receive_window",
        "released",
        "remote_closed",
        "send_window",
        "sendable",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.owner: Any = None
        self.send_window = send_window
        # What the peer may still send; with `credit` and the bytes the engine has not reported as
        # consumed it always sums up to the window that we advertise.
        self.receive_window = receive_window
        self.credit = 0
        self.local_closed = False
        self.remote_closed = False
        self.answered = False
        # DATA may go out, DATA may come in: after the headers, and before END_STREAM or a reset.
        self.sendable = False
        self.receivable = False
        self.ending = False  # the DATA that is handed out is its last
        # The connection's window no longer waits for this stream's bytes.
        self.released = False

    @property
    def closed(self) -> bool:
        return self.local_closed and self.remote_closed

    def shut(self) -> None:
        """No frame goes in or out any more."""
        self.local_closed = self.remote_closed = True
        self.sendable = self.receivable = False

    def __repr__(self) -> str:
        return f"Stream({self.id}, local {self.local_closed}, remote {self.remote_closed})"
