"""Every end of a tunnel has a reason for those who waited for it."""

from __future__ import annotations

import pytest

from ztunnel.connections.pool_failure import failure_of
from ztunnel.refusals import Reason
from ztunnel.transport.ends import TunnelEnd


@pytest.mark.parametrize("end", [None, *TunnelEnd])
def test_an_end_has_a_reason_and_says_what_it_was(end: TunnelEnd | None) -> None:
    why = failure_of(end, "the peer said no")
    assert why.flag is why.reason.flag
    assert why.detail.endswith(": the peer said no")
    assert failure_of(end, "").detail == (end or TunnelEnd.CUT).value
    assert (why.reason is Reason.TLS_FAILED) == (end in (TunnelEnd.TLS, TunnelEnd.REJECTED))
