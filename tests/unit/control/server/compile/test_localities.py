"""Regions and zones of nodes, and what an endpoint's zone alone tells."""

from __future__ import annotations

from control.model.workload import Locality
from control.server.compile.localities import Localities, first_label
from control.server.sources.objects import NodeObject
from tests.support.manifests import objects


def node(name: str, zone: str, region: str = "r") -> NodeObject:
    labels = f"topology.kubernetes.io/zone: {zone}, topology.kubernetes.io/region: {region}"
    text = f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
    return objects(text).nodes[0]


def test_a_zone_is_that_of_its_first_node_whoever_came_first() -> None:
    for names in (("a", "b"), ("b", "a")):
        subject = Localities()
        for name in names:
            assert subject.put(name, node(name, "z", f"region-{name}"))
        assert subject.near("", "z") == Locality("region-a", "z")
        assert subject.near("b", "z") == Locality("region-b", "z"), "its node is known"
        assert subject.put("a", None)
        assert subject.near("", "z") == Locality("region-b", "z")
        assert subject.put("b", node("b", "y"))
        assert subject.near("", "z") == Locality(zone="z")
        assert subject.of("a") == Locality()


def test_a_node_that_stays_where_it_is_is_no_news() -> None:
    subject = Localities()
    assert subject.put("a", node("a", "z"))
    assert not subject.put("a", node("a", "z"))
    assert not subject.put("b", None)


def test_of_several_names_of_a_label_the_first_that_says_something_counts() -> None:
    assert first_label({"a": "", "b": "x", "c": "y"}, ("a", "b", "c")) == "x"
    assert first_label({}, ("a",)) == ""
