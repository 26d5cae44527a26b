"""Bytes that wait for an app stand on an account as long as they wait, and no longer."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.tenants.account import Account
from ztunnel.tenants.bounds import FAREWELLS
from ztunnel.tenants.portions import Portions, Quota
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.transport.waiting import Waiting

QUOTA = Quota(4, total=1 << 20, floor=10)
STEPS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=50),  # held alone
        st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=3),  # held together
        st.integers(1, 60),  # taken
    ),
    max_size=30,
)


@given(STEPS, st.booleans())
def test_all_bytes_come_in_order_and_the_account_has_what_waits(
    steps: list[bytes | list[bytes] | int], dropped: bool
) -> None:
    portions = Portions(QUOTA)
    waiting = Waiting(Account(portions, Tenancy(Kind.PEER, "a"), Portions(FAREWELLS)))
    expected = b""
    for step in steps:
        if isinstance(step, bytes):
            waiting.hold(step)
            expected += step
        elif isinstance(step, list):
            waiting.hold_all(deque(memoryview(each) for each in step))
            expected += b"".join(step)
        elif waiting.pieces:
            first = waiting.pieces.popleft()
            waiting.taken(len(first))
            assert bytes(first) == expected[: len(first)]
            expected = expected[len(first) :]
        assert b"".join(waiting.pieces) == expected
        assert portions.used == len(expected)
    if dropped:
        waiting.drop()
        assert portions.used == 0
