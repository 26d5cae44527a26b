"""SPIFFE ids: exactly one form, letter by letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.identity import SpiffeId, parse_spiffe_id

SOME = SpiffeId("cluster.local", "shop", "web")


def test_it_prints_as_it_reads() -> None:
    assert str(SOME) == "spiffe://cluster.local/ns/shop/sa/web"
    assert parse_spiffe_id(str(SOME)) == SOME
    assert SOME.principal == "cluster.local/ns/shop/sa/web"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://cluster.local/ns/shop/sa/web/",
        "spiffe://cluster.local/ns/shop/web",
        "SPIFFE://cluster.local/ns/shop/sa/web",
        "spiffe://Cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web?x",
        "spiffe://cluster.local/ns/shop/sa/w%65b",
        "spiffe://cluster.local:443/ns/shop/sa/web",
        "spiffe://u@cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local//ns/shop/sa/web",
        "spiffe:///ns/shop/sa/web",
        "https://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web\n",
        "spiffe://cluster.local/ns/../sa/web",
        "spiffe://cluster.local/ns/shop/sa/" + "x" * 3000,
    ],
)
def test_nothing_else_is_an_identity(uri: str) -> None:
    with pytest.raises(ValueError):
        parse_spiffe_id(uri)


@given(st.text(max_size=80))
def test_what_parses_prints_the_same(text: str) -> None:
    for uri in (text, f"spiffe://td/ns/{text}/sa/a"):
        try:
            assert str(parse_spiffe_id(uri)) == uri
        except ValueError:
            pass
