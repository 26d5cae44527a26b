"""Bulk beside small messages is noticed, bulk alone and small messages alone are not."""

from __future__ import annotations

from ztunnel.transport.mixture import BULK_READ_BYTES_MIN, MIXED_S, SMALL_MIN, Mixture


def test_bulk_with_small_messages_is_a_mixture_until_it_has_been_alone_for_a_while() -> None:
    mixture = Mixture()
    mixture.small = SMALL_MIN
    assert mixture.read(BULK_READ_BYTES_MIN, 1000.0)
    assert mixture.mixed
    assert not mixture.read(BULK_READ_BYTES_MIN, 1000.0 + MIXED_S / 2), "nothing new"
    assert mixture.read(BULK_READ_BYTES_MIN, 1000.0 + MIXED_S * 2)
    assert not mixture.mixed


def test_the_cut_ends_of_a_bulk_read_are_not_small_messages() -> None:
    mixture = Mixture()
    for turn in range(100):
        mixture.small = SMALL_MIN - 1
        assert not mixture.read(BULK_READ_BYTES_MIN, 1000.0 + turn)


def test_small_messages_alone_are_no_mixture() -> None:
    mixture = Mixture()
    mixture.small = 64
    assert not mixture.read(BULK_READ_BYTES_MIN - 1, 1000.0)
    assert not mixture.mixed
    assert mixture.small == 0, "they do not count for the next read"
