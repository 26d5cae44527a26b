"""Objects as one bag: each kind in its place, sorted, and counted by its own name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from control.server.sources.kinds import KINDS
from control.server.sources.objects import Key, Meta, Objects
from tests.support.manifests import objects, pod, policy


def test_each_kind_is_sorted_by_key() -> None:
    found = objects(pod("b") + pod("a", "zoo") + pod("a") + policy("{}"))
    assert [str(each.meta.key) for each in found.pods] == [
        "Pod shop/a",
        "Pod shop/b",
        "Pod zoo/a",
    ]
    assert [each.meta.name for each in found.authorization_policies] == ["p"]


def test_every_kind_that_is_read_is_counted() -> None:
    assert Objects().counts().keys() == KINDS.keys()
    assert len(fields(Objects)) == len(KINDS)
    assert objects(pod()).counts()["Pod"] == 1


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (Key("Pod", "shop", "web"), "Pod shop/web"),
        (Key("Node", "", "n1"), "Node n1"),
    ],
)
def test_a_key_as_people_write_it(key: Key, text: str) -> None:
    assert str(key) == text


def test_the_oldest_object_comes_first_and_one_without_a_birthday_last() -> None:
    def meta(name: str, created: str = "") -> Meta:
        return Meta(Key("Pod", "a", name), "f", 1, {}, {}, created=created)

    young, old = meta("a", "2026-02-01T00:00:00Z"), meta("b", "2026-01-01T00:00:00Z")
    unknown, other = meta("c"), meta("d")
    ordered = sorted((other, unknown, young, old), key=lambda each: each.age_key)
    assert [each.name for each in ordered] == ["b", "a", "c", "d"]
