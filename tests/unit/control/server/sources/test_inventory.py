"""All objects in force: what changed, what differs, what is missing."""

from __future__ import annotations

from control.kit.slices import done
from control.server.sources.inventory import Inventory
from control.server.sources.objects import AnyObject, Key, Objects
from tests.support.manifests import objects, pod


def made(text: str) -> dict[Key, AnyObject]:
    return {each.meta.key: each for each in objects(text)}


def test_news_is_what_was_put_since_it_was_asked_for() -> None:
    inventory = Inventory()
    ((key, value),) = made(pod("a")).items()
    assert inventory.put(key, value)
    assert not inventory.put(*next(iter(made(pod("a")).items()))), "its equal"
    assert inventory.news() == {key: value}
    assert inventory.news() == {}
    assert inventory.put(key, None)
    assert not inventory.put(key, None)
    assert inventory.news() == {key: None}
    assert len(inventory) == 0


def test_all_there_is_leaves_no_news() -> None:
    inventory = Inventory()
    found = made(pod("b") + pod("a"))
    for key, value in found.items():
        inventory.put(key, value)
    assert inventory.whole() == found
    assert inventory.news() == {}
    assert list(inventory) == list(found.values())


def test_objects_are_sorted_and_the_same_until_their_kind_changes() -> None:
    inventory = Inventory()
    assert inventory.objects() == Objects()
    inventory.replace(made(pod("b") + pod("a")))
    first = inventory.objects()
    assert [each.meta.name for each in first.pods] == ["a", "b"]
    namespace = made("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")
    inventory.replace(namespace)
    assert inventory.objects().pods is first.pods
    assert inventory.counts()["Namespace"] == 1
    inventory.replace(dict.fromkeys(namespace))
    assert inventory.objects() == first


def test_what_differs_and_what_is_missing() -> None:
    inventory = Inventory()
    inventory.replace(made(pod("a") + pod("b")))
    after = made(pod("a") + pod("b", address="10.1.0.2") + pod("c"))
    after = {key: each for key, each in after.items() if key.name != "a"}
    assert [key.name for key in inventory.differing(after)] == ["b", "c"]
    assert [key.name for key in done(inventory.missing(after))] == ["a"]
    assert inventory.differing(dict.fromkeys(inventory.kind("Node"))) == {}
    gone = Key("Pod", "shop", "never")
    assert inventory.differing({gone: None}) == {}
    assert inventory.get(gone) is None
