import pytest

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.limits import ALLOWANCE_MAX, ALLOWANCE_START, WORK_BYTES_PER_CREDIT, Allowance


def test_the_allowance_ends() -> None:
    allowance = Allowance()
    for _ in range(ALLOWANCE_START):
        allowance.spend(1, 0, "PINGs")
    with pytest.raises(ConnectionBroken) as broken:
        allowance.spend(1, 0, "PINGs")
    assert broken.value.code is ErrorCode.ENHANCE_YOUR_CALM
    assert broken.value.reason == "too many PINGs"


def test_moved_bytes_earn_and_are_counted_once() -> None:
    allowance = Allowance()
    allowance.spend(0, WORK_BYTES_PER_CREDIT * 10 + 1, "")
    assert allowance.left == ALLOWANCE_START + 10
    allowance.spend(0, WORK_BYTES_PER_CREDIT * 10 + 1, "")
    assert allowance.left == ALLOWANCE_START + 10
    allowance.spend(0, WORK_BYTES_PER_CREDIT * 11, "")
    assert allowance.left == ALLOWANCE_START + 11


def test_no_peer_earns_without_bound() -> None:
    allowance = Allowance()
    allowance.spend(0, 1 << 60, "")
    assert allowance.left == ALLOWANCE_MAX
    allowance = Allowance()
    for _ in range(10 * ALLOWANCE_START):
        allowance.refill(4)
    assert allowance.left < ALLOWANCE_START + 4
    assert allowance.left_for_work < ALLOWANCE_START + 4


def test_bytes_do_not_pay_for_work() -> None:
    allowance = Allowance()
    allowance.spend(0, 1 << 30, "")
    allowance.charge(ALLOWANCE_START, "resets")
    with pytest.raises(ConnectionBroken) as broken:
        allowance.charge(1, "resets")
    assert broken.value.code is ErrorCode.ENHANCE_YOUR_CALM
    allowance.refill(4)
    allowance.charge(3, "resets")
