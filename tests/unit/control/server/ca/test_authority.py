"""A CA and its chain, as leaves carry it."""

from __future__ import annotations

from datetime import timedelta

from control.server.ca.authority import Authority, new_authority, pem_of
from tests.support.authorities import CompanyCa
from tests.support.clock import FakeClock

NOW = FakeClock().now()


def test_a_ca_of_our_own_is_its_root() -> None:
    made = new_authority("cluster.local", NOW)
    assert made.issuer is made.root
    assert made.chain_pem == [pem_of(made.root)]
    assert "PRIVATE" not in repr(made)


def test_an_intermediate_goes_with_each_leaf_and_the_first_end_counts() -> None:
    root = CompanyCa("root", NOW)
    between = CompanyCa("between", NOW, root, lasts=timedelta(days=3))
    made = Authority(between.key, root.certificate, (between.certificate,))
    assert made.issuer is between.certificate
    assert made.chain_pem == [pem_of(between.certificate), pem_of(root.certificate)]
    assert made.ends_at == NOW + timedelta(days=3)


def test_a_bundle_has_no_root_twice_and_none_that_has_ended() -> None:
    made = new_authority("cluster.local", NOW)
    old, new = CompanyCa("old", NOW, lasts=timedelta(days=1)), CompanyCa("new", NOW)
    roots = (made.root, old.certificate, new.certificate, new.certificate)
    beside = made.beside(roots, NOW + timedelta(days=2))
    assert beside.other_roots == (new.certificate,)
