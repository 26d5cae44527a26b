"""Tells who is about to come back, so that a long piece of somebody else's work can wait for them.

Nothing interrupts a piece of work. Somebody who waits for answers has nothing to do here between
two of them, and a piece that begins just then is a wait of its own: handshakes of 250 µs left a
third of the rate of a client whose messages take 40. Whoever comes back sooner than the piece would
end is worth the wait, as far as it had less than whose piece it is. Decides nothing about turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Somebody with pieces shorter than this on average keeps nobody waiting.
LONG_PIECE_S: Final = 0.0001
# Longer ones are stalls, for which `turns` has whoever stalls rest anyway.
STALL_S: Final = 0.001
# Nobody is waited for longer; who comes back later loses less by a piece than by a queue.
AWAY_S_MAX: Final = 0.0004
# The figure for such an absence: a few of them, and nobody waits any more.
TOO_LONG_S: Final = 2 * AWAY_S_MAX
# Away for so many times as long as usual is late, and not waited for.
LATE_TIMES: Final = 2.0
# Weight of the last visit in what is usual.
NEWS: Final = 1 / 8
# When nobody was served for so long, whoever comes has come just now.
IDLE_S: Final = 0.00001
# Else it may have come any time since the last look. After so many times somebody is waited for,
# to know how long it takes.
VAGUE_MAX: Final = 16
# Payers that are remembered: those that came last.
KNOWN_MAX: Final = 256


class _Visitor:
    __slots__ = (
        "away_s",
        "cycle_s",
        "is_last_long",
        "is_new",
        "is_sought",
        "left_s",
        "piece_s",
        "served_s",
        "vague",
    )

    def __init__(self, piece_s: float) -> None:
        self.piece_s = piece_s  # time in which nobody else is served, on average
        self.is_new = True
        self.is_last_long = False
        self.away_s = AWAY_S_MAX  # between two visits, likewise
        self.cycle_s = AWAY_S_MAX  # from visit to visit if it never had to wait, likewise
        self.vague = 0  # times in a row that it came while somebody else was served
        self.is_sought = False  # this time it is waited for
        self.left_s = 0.0
        self.served_s = 0.0  # in this visit


class Visits:
    """Payers, from the moment at which something of theirs waits until nothing does."""

    __slots__ = ("_away", "_busy_until_s", "_first_s", "_known", "_last", "_polled_s")

    def __init__(self) -> None:
        self._known: dict[object, _Visitor] = {}  # in the order in which they came
        self._away: dict[object, _Visitor] = {}  # in the order in which they left
        self._polled_s = 0.0
        self._last: object = None  # the one that was served last
        self._busy_until_s = 0.0
        self._first_s = 0.0  # the first piece of somebody new, on average

    def polled(self, now_s: float) -> None:
        """Note a look at everything: those who are ready have come."""
        self._polled_s = now_s
        self._give_up(now_s)

    def came(self, payer: object, now_s: float) -> None:
        """Something of the payer waits now; nothing did."""
        known = self._known
        visitor = known.pop(payer, None)
        if visitor is None:
            visitor = _Visitor(self._first_s)
            if len(known) >= KNOWN_MAX:
                forgotten = next(iter(known))
                del known[forgotten]
                self._away.pop(forgotten, None)
        known[payer] = visitor
        visitor.served_s = 0.0
        if visitor.is_sought:
            visitor.is_sought, visitor.vague = False, 0
        if self._away.pop(payer, None) is None:
            return
        if self._last is payer or now_s - self._busy_until_s > IDLE_S:
            visitor.vague = 0
            self._note_away(visitor, now_s - visitor.left_s)
        else:
            visitor.vague += 1
            least_s, most_s = self._polled_s - visitor.left_s, now_s - visitor.left_s
            self._note_away(visitor, min(max(visitor.away_s, least_s), most_s))

    def served(self, payer: object, took_s: float, now_s: float) -> None:
        """It was served until now, and nobody else meanwhile."""
        self._last, self._busy_until_s = payer, now_s
        visitor = self._known.get(payer)
        if visitor is not None:
            if visitor.is_new:
                visitor.is_new = False
                self._first_s += (took_s - self._first_s) * NEWS
            visitor.piece_s += (took_s - visitor.piece_s) * NEWS
            visitor.served_s += took_s
            visitor.is_last_long = took_s >= LONG_PIECE_S

    def left(self, payer: object, now_s: float) -> None:
        """Nothing of it waits any more."""
        visitor = self._known.get(payer)
        if visitor is not None and getattr(payer, "returns", True):
            visitor.left_s = now_s
            visitor.cycle_s += (visitor.away_s + visitor.served_s - visitor.cycle_s) * NEWS
            self._away[payer] = visitor

    @property
    def is_anyone_away(self) -> bool:
        """True if somebody had nothing left, not long ago."""
        return bool(self._away)

    def may_have_come(self, payer: object) -> bool:
        """True if what the payer was served for was long, and somebody was away meanwhile."""
        visitor = self._known.get(payer)
        others = len(self._away) - (payer in self._away)
        return visitor is not None and visitor.is_last_long and others > 0

    def is_long(self, payer: object) -> bool:
        """True if a piece of the payer's work may be worth a wait for others."""
        visitor = self._known.get(payer)
        return visitor is not None and LONG_PIECE_S <= visitor.piece_s <= STALL_S

    def awaited(
        self, payer: object, now_s: float, is_behind: Callable[[object, object], bool]
    ) -> tuple[object, float] | None:
        """Somebody who comes back before the next piece of the payer would end, and until when it
        is not late. None if there is nobody."""
        piece_s = self._known[payer].piece_s
        for who, visitor in self._away.items():
            until_s = visitor.left_s + min(AWAY_S_MAX, piece_s, LATE_TIMES * visitor.away_s)
            is_soon = visitor.away_s <= AWAY_S_MAX and visitor.cycle_s < piece_s
            if not is_soon and (visitor.is_sought or visitor.vague >= VAGUE_MAX):
                is_soon, until_s = True, visitor.left_s + min(AWAY_S_MAX, piece_s)
                visitor.is_sought = True
            if is_soon and now_s < until_s and is_behind(who, payer):
                return who, until_s
        return None

    def clear(self) -> None:
        """Nobody is awaited."""
        self._away.clear()

    def _give_up(self, now_s: float) -> None:
        """Wait no more for those who are away for too long."""
        while self._away:
            who, visitor = next(iter(self._away.items()))
            if now_s - visitor.left_s <= AWAY_S_MAX:
                break
            del self._away[who]
            visitor.vague = 0
            self._note_away(visitor, TOO_LONG_S)

    def _note_away(self, visitor: _Visitor, away_s: float) -> None:
        counted_s = away_s if away_s <= AWAY_S_MAX else TOO_LONG_S
        visitor.away_s += (counted_s - visitor.away_s) * NEWS
