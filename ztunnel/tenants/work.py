"""Work that leads to nothing (refusals, handshakes) as a debt of the tenant that made us do it.

The debt is an estimate of CPU time, and is paid back with time. A tenant over its burst is read
later, so that it costs the others a part of the time only, however much it sends. A request that is
let in pays for the handshake that brought it. While all together owe too much, those that owe share
one pace, and only who has been of use keeps its burst.
"""

from __future__ import annotations

from typing import Final

from ztunnel.tenants.tenancy import Tenancy

# Seconds of CPU in a second: of one tenant, and of all that owe.
WORK_PART: Final = 0.05
WORK_PART_ALL: Final = 0.2
# Owed before anything is delayed: some 2,000 refusals, or 100 handshakes.
WORK_BURST_S: Final = 0.1
# Owed by all together; beyond it nobody's burst counts, and all that owe share the pace.
WORK_BURST_ALL_S: Final = 0.3
# Between two looks for debtors that have paid.
SETTLE_S: Final = 0.25
# A tenant waits this long at most: a host that says nothing for two seconds is taken for lost.
WORK_WAIT_S_MAX: Final = 1.5
# Estimates, of a worker that is not compiled.
REFUSAL_WORK_S: Final = 50e-6
FIELD_WORK_S: Final = 3e-6
HANDSHAKE_WORK_S: Final = 1e-3
# A tunnel that broke the rules: as much as its allowance of odd frames may have cost.
VIOLATION_WORK_S: Final = 0.05

# Log lines about a tenant's refusals: in a second, and at once.
LINES_PER_S: Final = 10.0
LINES_BURST: Final = 100.0


class Work:
    __slots__ = ("_all_paid_at_s", "_all_s", "_debtors", "_settled_s", "delayed")

    def __init__(self) -> None:
        self._debtors: dict[Tenancy, None] = {}  # all that owe anything
        self._all_s = 0.0  # what all have cost, as of then
        self._all_paid_at_s = 0.0
        self._settled_s = 0.0
        self.delayed = 0  # times that a tenant was made to wait

    def spend(self, tenant: Tenancy, cost_s: float, now_s: float) -> None:
        """Add to the tenant's debt."""
        passed_s = max(0.0, now_s - self._all_paid_at_s)
        self._all_s = max(0.0, self._all_s - passed_s * WORK_PART_ALL) + cost_s
        self._all_paid_at_s = now_s
        pressed = self._all_s > WORK_BURST_ALL_S
        if pressed and now_s - self._settled_s >= SETTLE_S:
            self.settle(now_s)
        rate = self._rate() if pressed else WORK_PART
        debt_s = _left(tenant, rate, now_s) + cost_s
        tenant.debt_s = debt_s
        tenant.paid_at_s = now_s
        self._debtors[tenant] = None
        over_s = debt_s if pressed and not tenant.trusted else debt_s - WORK_BURST_S
        if over_s > 0.0:
            tenant.trusted = False
            tenant.not_before_s = now_s + min(over_s / rate, WORK_WAIT_S_MAX)
            self.delayed += 1

    def earn(self, tenant: Tenancy, cost_s: float) -> None:
        """Take back a cost that turned out to be useful."""
        if tenant.debt_s:
            tenant.debt_s = max(0.0, tenant.debt_s - cost_s)
            self._all_s = max(0.0, self._all_s - cost_s)

    def _rate(self) -> float:
        """Seconds that each pays back in a second while all together owe too much."""
        return min(WORK_PART, WORK_PART_ALL / max(1, len(self._debtors)))

    def settle(self, now_s: float) -> None:
        """Forget debtors that have paid."""
        self._settled_s = now_s
        rate = self._rate()
        for tenant in list(self._debtors):
            if not _left(tenant, rate, now_s):
                tenant.debt_s = 0.0
                del self._debtors[tenant]


def _left(tenant: Tenancy, rate: float, now_s: float) -> float:
    """The tenant's debt now. What a wait of the longest kind has not paid is forgiven."""
    if not tenant.debt_s:
        return 0.0
    debt_s = tenant.debt_s - max(0.0, now_s - tenant.paid_at_s) * rate
    return min(max(0.0, debt_s), WORK_BURST_S + WORK_WAIT_S_MAX * WORK_PART)


def may_log(tenant: Tenancy, now_s: float) -> bool:
    """Take a line from the tenant's pace; those left out are counted in `left_out`. The caller
    writes the count, and sets it to zero."""
    owed = max(0.0, tenant.lines_owed - max(0.0, now_s - tenant.lines_at_s) * LINES_PER_S)
    tenant.lines_at_s = now_s
    if owed + 1.0 > LINES_BURST:
        tenant.lines_owed = owed
        tenant.left_out += 1
        return False
    tenant.lines_owed = owed + 1.0
    return True
