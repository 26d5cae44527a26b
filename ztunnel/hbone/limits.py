"""Bounds against peers that send much and mean little; counts, and never looks at a clock.

A flood is told from a long life by comparing odd frames with useful work. Each connection has an
allowance: frames that cost us more than they move spend it, and bytes moved in either direction,
answered requests and reads refill it. A read is a refill because whatever comes slower than we
read (a PING each 10 s, for days) cannot be a flood; a flood arrives many frames to the read.

What makes the engine work (streams that end unanswered, SETTINGS, huge header lists) has a second
allowance, for which bytes do not pay: else some megabytes would buy a peer seconds of our time.
"""

from typing import Final

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode

# Twice what a busy peer may do in one burst: 200 streams cancelled before their answer, some times
# in a row. nghttp2 allows 1,000 early resets in a burst; with RESET_COST it is the same here.
ALLOWANCE_START: Final = 4_000
# Work may earn more, because a peer that takes a full connection window in tiny messages may give
# each back with a WINDOW_UPDATE of its own; 2**20 of those cost about a second of one core.
ALLOWANCE_MAX: Final = 1 << 20
# One frame that answers a read's worth of traffic is free, and so are three companions.
REFILL_PER_READ: Final = 4
# The smallest message worth a tunnel; one odd frame per so many bytes moved is normal.
WORK_BYTES_PER_CREDIT: Final = 16
# A request that was answered pays for its own reset later.
REFILL_PER_ANSWER: Final = 8

# PING, PRIORITY, WINDOW_UPDATE, empty DATA, frames of unknown type: parsed and forgotten.
FRAME_COST: Final = 1
# A stream that ends before it was answered costs a header decode and the engine's attention
# (rapid reset), and so does a stream that we are made to refuse or reset.
RESET_COST: Final = 4
# SETTINGS touch every stream's window and need an acknowledgement.
SETTINGS_COST: Final = 20

# Fields that a request has for nothing: five are ours, and a gateway may add some dozens. Decoding
# one costs 6 µs and as little as a byte on the wire, so 64 KiB of the smallest are 20 ms.
FIELDS_PER_CREDIT: Final = 32

# Acknowledgements, resets and responses waiting in `outbound`: a peer that makes us answer and does
# not read. Twice what 200 streams are answered with; an honest peer has no more under way.
REPLY_BYTES_MAX: Final = 256 * 1024
# SETTINGS, GOAWAY with its debug text: buffered whole, so no larger than HTTP/2's default frame.
CONTROL_FRAME_BYTES_MAX: Final = 16_384
# 64 KiB of headers need four frames of the default size; more is a way to keep us collecting.
CONTINUATIONS_MAX: Final = 16
# Ids remembered after we reset a stream, to tell frames already under way from wrong ones:
# a generation of this size and the one before it.
RESET_IDS_MAX: Final = 512


class Allowance:
    """How many more odd frames this peer may send, and how much work it may make for nothing."""

    __slots__ = ("_work_bytes", "left", "left_for_work")

    def __init__(self) -> None:
        self.left = ALLOWANCE_START
        self.left_for_work = ALLOWANCE_START
        self._work_bytes = 0

    def refill(self, credits: int) -> None:
        if self.left < ALLOWANCE_START:
            self.left += credits
        if self.left_for_work < ALLOWANCE_START:
            self.left_for_work += credits

    def spend(self, cost: int, work_bytes: int, reason: str) -> None:
        """Take `cost`, after crediting the connection's `work_bytes` so far (only ever grows)."""
        earned = (work_bytes - self._work_bytes) // WORK_BYTES_PER_CREDIT
        if earned > 0:
            self._work_bytes += earned * WORK_BYTES_PER_CREDIT
            self.left = min(self.left + earned, ALLOWANCE_MAX)
        self.left -= cost
        if self.left < 0:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, f"too many {reason}")

    def charge(self, cost: int, reason: str) -> None:
        """Take `cost` of what moved bytes do not pay for."""
        self.left_for_work -= cost
        if self.left_for_work < 0:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, f"too many {reason}")
