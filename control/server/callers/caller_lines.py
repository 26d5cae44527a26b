"""Log lines about what nodes do that may call: by tenant, so that none can fill a disk.

Beside those about refusals (`Arrivals.refused`), which they must not crowd out.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from control.kit.clock import Clock
from control.kit.log import event
from control.server.callers.budget import PACED_TENANTS_MAX, TOLD, Paces, Tenant


class CallerLines:
    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._pace = Paces(TOLD)
        self._left_out: OrderedDict[Tenant, int] = OrderedDict()

    def line(self, tenant: Tenant, level: int, name: str, **fields: object) -> None:
        """Write it unless this tenant has filled its lines; the next one says how many were not."""
        if not self._pace.allow(tenant, self._clock.monotonic_s()):
            self._left_out[tenant] = self._left_out.get(tenant, 0) + 1
            self._left_out.move_to_end(tenant)
            if len(self._left_out) > PACED_TENANTS_MAX:
                self._left_out.popitem(last=False)
            return
        if left_out := self._left_out.pop(tenant, 0):
            fields["left_out"] = left_out
        event(self._log, level, name, **fields)
