"""Words about a name that is not there, however many there are."""

from __future__ import annotations

from control.kit.choices import absent


def test_the_name_that_was_meant_comes_first() -> None:
    assert absent("node", "n11", ["n2", "n1"]) == "no node 'n11', perhaps 'n1'; there are: n1, n2"


def test_without_any_it_says_so() -> None:
    assert absent("node", "n1", []) == "no node 'n1'; there are: none"


def test_a_mesh_of_thousands_gives_a_line_that_is_still_read() -> None:
    said = absent("namespace", "shop-777x", [f"shop-{number}" for number in range(5000)])
    assert len(said) < 200
    assert "perhaps 'shop-777'" in said
    assert said.endswith("and 4990 more")
