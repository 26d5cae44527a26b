"""The pace of a tenant's lines about connections that were open: all of them at any ordinary rate.

Short connections by the thousand would fill the disk of whoever keeps the log, for as long as the
tenant likes. Lines about refusals have a pace of their own, in `work`.
"""

from __future__ import annotations

from typing import Final

from ztunnel.tenants.tenancy import Tenancy

# Lines in a second, of one tenant in one worker, and at once after a quiet time: 200 bytes each.
ENDS_PER_S: Final = 1000.0
ENDS_BURST: Final = 10_000.0


def may_log_end(tenant: Tenancy, now_s: float) -> bool:
    """Take a line from the tenant's pace; those left out are counted in `left_out`. The caller
    writes the count, and sets it to zero."""
    owed = tenant.ends_owed
    if owed:
        owed = max(0.0, owed - max(0.0, now_s - tenant.ends_at_s) * ENDS_PER_S)
    tenant.ends_at_s = now_s
    if owed + 1.0 > ENDS_BURST:
        tenant.ends_owed = owed
        tenant.left_out += 1
        return False
    tenant.ends_owed = owed + 1.0
    return True
