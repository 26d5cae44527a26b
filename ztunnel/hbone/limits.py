"""Bounds on peers that send much and mean little. Counts frames, and never looks at a clock.

Odd frames are compared with useful work, to tell a flood from a long life. Each connection has an
allowance. Frames that cost us more than they move spend it; bytes moved in either direction,
answered requests and reads that bring a whole frame refill it. Reads do because frames that come
slower than we read (a PING every 10 s, for days) cannot be a flood: a flood brings many frames in
each read.

Frames that make the engine work (streams that end unanswered, SETTINGS, huge header lists) spend a
second allowance that bytes do not refill. Otherwise some megabytes would buy seconds of our time.
"""

from typing import Final

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode

# Twice a busy peer's largest burst: its 200 streams cancelled before they are answered, a few times
# in a row. nghttp2 allows 1,000 early resets in a burst; with RESET_COST that is the same.
ALLOWANCE_START: Final = 4_000
# Work may earn more, because a peer that takes a full connection window in tiny messages may answer
# each with a WINDOW_UPDATE. 2**20 of those cost about a second of one core.
ALLOWANCE_MAX: Final = 1 << 20
# A frame that answers one read's traffic is free, and so are three more.
REFILL_PER_READ: Final = 4
# The smallest message worth a tunnel; one odd frame per this many bytes is normal.
WORK_BYTES_PER_CREDIT: Final = 16
# An answered request has paid for its own reset later.
REFILL_PER_ANSWER: Final = 8

# PING, PRIORITY, WINDOW_UPDATE, empty DATA, frames of unknown type: parsed and forgotten.
FRAME_COST: Final = 1
# A read that completes no frame and brings no payload: honest peers cut frames where a record of
# 16 KiB is full, and not one after the other.
FRAGMENT_COST: Final = 2
# A stream that ends before its answer costs a header decode and the engine's attention (rapid
# reset), and so does a stream that the peer makes us refuse or reset.
RESET_COST: Final = 4
# SETTINGS touch every stream's window and need an acknowledgement.
SETTINGS_COST: Final = 20

# Header fields that are free: five are ours, and a gateway may add some dozens. A field takes 6 µs
# to decode and as little as one byte on the wire, so 64 KiB of the smallest take 20 ms.
FIELDS_PER_CREDIT: Final = 32

# Acknowledgements, resets and responses that may wait in `outbound` for a peer that makes us answer
# and does not read: twice the answers of 200 streams, more than an honest peer has under way.
REPLY_BYTES_MAX: Final = 256 * 1024
# SETTINGS, and GOAWAY with its debug text, are buffered whole: at most HTTP/2's default frame.
CONTROL_FRAME_BYTES_MAX: Final = 16_384
# 64 KiB of headers take four frames of the default size; many more only keep us collecting.
CONTINUATIONS_MAX: Final = 16
# Ids of streams that we reset, to tell frames that were under way from wrong ones: a generation of
# this size, and the one before it.
RESET_IDS_MAX: Final = 512


class Allowance:
    """Odd frames that a peer may still send, and work that it may still cause for nothing."""

    __slots__ = ("_work_bytes", "left", "left_for_work")

    def __init__(self) -> None:
        self.left = ALLOWANCE_START
        self.left_for_work = ALLOWANCE_START
        self._work_bytes = 0

    def refill(self, credits: int) -> None:
        """Give credits back, up to the start."""
        if self.left < ALLOWANCE_START:
            self.left += credits
        if self.left_for_work < ALLOWANCE_START:
            self.left_for_work += credits

    def spend(self, cost: int, work_bytes: int, reason: str) -> None:
        """Take `cost`, for which moved bytes pay. Raises ConnectionBroken when nothing is left.

        `work_bytes` are those of the connection so far; the new ones are credited first.
        """
        earned = (work_bytes - self._work_bytes) // WORK_BYTES_PER_CREDIT
        if earned > 0:
            self._work_bytes += earned * WORK_BYTES_PER_CREDIT
            self.left = min(self.left + earned, ALLOWANCE_MAX)
        self.left -= cost
        if self.left < 0:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, f"too many {reason}")

    def charge(self, cost: int, reason: str) -> None:
        """Take `cost`, for which moved bytes do not pay. Raises ConnectionBroken likewise."""
        self.left_for_work -= cost
        if self.left_for_work < 0:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, f"too many {reason}")
