"""The CA in force. It may be replaced while we run, always as a whole."""

from __future__ import annotations

import logging
from datetime import timedelta

from control.kit.clock import Clock
from control.kit.log import event
from control.server.ca.authority import Authority
from control.server.metrics import Metrics

log = logging.getLogger("ca")


class Authorities:
    """After a change, what the last CA signed is trusted for as long as it may live: its roots stay
    in the bundle for `carried`, the longest life of a leaf."""

    def __init__(
        self, first: Authority, *, metrics: Metrics, clock: Clock, carried: timedelta
    ) -> None:
        self.given = first  # without roots that are carried
        self._clock = clock
        self._metrics = metrics
        self._carried = carried
        # With when its roots go, on the clock that nobody sets.
        self._former: list[tuple[Authority, float]] = []
        self._show(first)

    @property
    def current(self) -> Authority:
        now, now_s = self._clock.now(), self._clock.monotonic_s()
        while self._former and self._former[0][1] <= now_s:
            self._former.pop(0)
        roots = tuple(root for each, _ in self._former for root in (each.root, *each.other_roots))
        return self.given.beside(roots, now) if roots else self.given

    def replace(self, authority: Authority) -> bool:
        """Sign with this one from now on; False when it is the one in force."""
        if authority == self.given:
            return False
        is_other = authority.issuer != self.given.issuer
        until_s = self._clock.monotonic_s() + self._carried.total_seconds()
        self._former.append((self.given, until_s))
        self.given = authority
        self._show(authority)
        event(
            log,
            logging.WARNING,
            "ca.replaced" if is_other else "ca.roots_changed",
            issuer=f"{authority.issuer.serial_number:x}",
            root=f"{authority.root.serial_number:x}",
            not_after=authority.ends_at.isoformat(),
        )
        return True

    def _show(self, authority: Authority) -> None:
        self._metrics.root_expiry.set(authority.ends_at.timestamp())
