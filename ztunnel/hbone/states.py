"""The states of a stream, and the state that follows each input (RFC 9113 section 5.1).

A stream has two halves, ours ("local") and the peer's ("remote"). Each half moves one way: it is
waiting until its HEADERS, open while it may carry DATA, and ended after END_STREAM. The halves move
independently, so three steps times two halves make nine states. RFC 9113 names only five of them,
because it does not say who has answered; in a CONNECT tunnel that decides who may send DATA:

    state               local    remote   in RFC 9113             may send  may receive
    IDLE                waiting  waiting  idle                    -         -
    ASKED               open     waiting  open                    DATA      -
    ASKED_ENDED         ended    waiting  half-closed (local)     -         -
    REQUESTED           waiting  open     open                    -         DATA
    REQUESTED_ENDED     waiting  ended    half-closed (remote)    -         -
    OPEN                open     open     open                    DATA      DATA
    HALF_CLOSED_LOCAL   ended    open     half-closed (local)     -         DATA
    HALF_CLOSED_REMOTE  open     ended    half-closed (remote)    DATA      -
    CLOSED              ended    ended    closed                  -         -

An input moves one half and leaves the other as it is. A wrong input from the peer resets the
stream with an error code; a wrong command is a bug of ours and raises ValueError, except that
commands on a half that has ended do nothing: the peer may have reset the stream in the meantime.

    input                  half is waiting    half is open             half has ended
    we send HEADERS        open               ValueError               nothing
    we send DATA           ValueError         open                     ValueError
    we send END_STREAM     ValueError         ended                    nothing
    HEADERS are received   open               PROTOCOL_ERROR, unless   STREAM_CLOSED
                                              they are trailers
    DATA is received       PROTOCOL_ERROR     open                     STREAM_CLOSED
    END_STREAM is received (comes with one of the two above)
                                              ended
    RST_STREAM either way  ended, and so is the other half

WINDOW_UPDATE and PRIORITY change no state. A GOAWAY that leaves the stream out, and the end of the
connection, act like RST_STREAM.

No `Stream` exists before IDLE is left or after CLOSED is reached (`Core.streams` has neither); then
the stream's id decides about a frame that names it:

    the id was         HEADERS                        DATA               RST_STREAM, WINDOW_UPDATE
    never used         at a server: REQUESTED         connection error   connection error
                       at a client: connection error
    reset by us (*)    ignored                        ignored            ignored
    closed otherwise   at a server: connection error  RST_STREAM         ignored
                       at a client: ignored

(*) as far as `Core.reset_ids` remembers: the peer may have sent these before it saw our RST_STREAM.
The bytes of ignored DATA go back to the connection's window.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Half(Enum):
    """One direction of a stream."""

    WAITING = "waiting"
    OPEN = "open"
    ENDED = "ended"


class StreamState:
    """One row of the table; an `after_` column is None where the input is wrong or changes nothing.

    All streams share the nine rows, so moving a stream costs one attribute.
    """

    __slots__ = (
        "after_received_end",
        "after_received_headers",
        "after_sent_end",
        "after_sent_headers",
        "answered",
        "local",
        "local_ended",
        "receivable",
        "remote",
        "remote_ended",
        "sendable",
    )

    def __init__(self, local: Half, remote: Half) -> None:
        self.local = local
        self.remote = remote
        self.sendable = local is Half.OPEN
        self.receivable = remote is Half.OPEN
        self.local_ended = local is Half.ENDED
        self.remote_ended = remote is Half.ENDED
        self.answered = local is not Half.WAITING and remote is not Half.WAITING
        self.after_sent_headers: StreamState | None = None
        self.after_sent_end: StreamState | None = None
        self.after_received_headers: StreamState | None = None
        self.after_received_end: StreamState | None = None

    def __repr__(self) -> str:
        return f"local {self.local.value}, remote {self.remote.value}"


def _table() -> dict[tuple[Half, Half], StreamState]:
    rows = {(local, remote): StreamState(local, remote) for local in Half for remote in Half}
    for (local, remote), row in rows.items():
        if local is Half.WAITING:
            row.after_sent_headers = rows[Half.OPEN, remote]
        elif local is Half.OPEN:
            row.after_sent_end = rows[Half.ENDED, remote]
        if remote is Half.WAITING:
            row.after_received_headers = rows[local, Half.OPEN]
        elif remote is Half.OPEN:
            row.after_received_end = rows[local, Half.ENDED]
    return rows


_ROWS: Final = _table()
IDLE: Final = _ROWS[Half.WAITING, Half.WAITING]
ASKED: Final = _ROWS[Half.OPEN, Half.WAITING]
ASKED_ENDED: Final = _ROWS[Half.ENDED, Half.WAITING]
REQUESTED: Final = _ROWS[Half.WAITING, Half.OPEN]
REQUESTED_ENDED: Final = _ROWS[Half.WAITING, Half.ENDED]
OPEN: Final = _ROWS[Half.OPEN, Half.OPEN]
HALF_CLOSED_LOCAL: Final = _ROWS[Half.ENDED, Half.OPEN]
HALF_CLOSED_REMOTE: Final = _ROWS[Half.OPEN, Half.ENDED]
CLOSED: Final = _ROWS[Half.ENDED, Half.ENDED]
