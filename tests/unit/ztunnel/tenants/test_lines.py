"""The pace of lines about connections that were open: nothing is lost count of."""

from __future__ import annotations

import random

from ztunnel.tenants.lines import ENDS_BURST, ENDS_PER_S, may_log_end
from ztunnel.tenants.tenancy import Kind, Tenancy


def test_every_line_is_written_or_counted_and_the_pace_is_kept() -> None:
    random_ = random.Random(5)
    tenant, now_s, written, tries = Tenancy(Kind.POD, "p"), 1000.0, 0, 0
    for _ in range(200):
        now_s += random_.random()
        for _ in range(random_.randrange(500)):
            tries += 1
            written += may_log_end(tenant, now_s)
    assert written + tenant.left_out == tries
    assert written <= ENDS_BURST + ENDS_PER_S * (now_s - 1000.0)
    assert tenant.left_out == 0, "500 a second at most are an ordinary rate"


def test_a_flood_costs_its_own_lines_and_nobody_elses() -> None:
    flood, other = Tenancy(Kind.POD, "flood"), Tenancy(Kind.POD, "other")
    assert sum(may_log_end(flood, 5.0) for _ in range(30_000)) == ENDS_BURST
    assert may_log_end(other, 5.0)
    assert sum(may_log_end(flood, 6.0) for _ in range(30_000)) == ENDS_PER_S
    assert flood.left_out == 60_000 - ENDS_BURST - ENDS_PER_S
    assert may_log_end(flood, 5.0) is False, "a clock that goes back gives nothing"
