"""Selecting objects are found by the labels of a pod, among many that nearly select it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from control.server.compile.population import Population
from control.server.compile.selectors import Selectors, selects
from control.server.sources.objects import Key, Labels

LABELS = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), max_size=3)
NAMES = [Key("Service", "shop", name) for name in "abcd"]
STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), LABELS), st.sampled_from(["shop", ""])),
    max_size=10,
)


@dataclass(frozen=True)
class Selecting:
    selector: Labels
    namespace: str


@given(STEPS, LABELS, st.sampled_from(["shop", "mine"]), st.lists(LABELS, max_size=4))
def test_it_finds_what_a_search_finds(
    steps: list[tuple[Key, dict[str, str] | None, str]],
    labels: dict[str, str],
    namespace: str,
    pods: list[dict[str, str]],
) -> None:
    population = Population()
    for number, each in enumerate(pods):
        population.put(Key("Pod", "shop", str(number)), each)
    subject: Selectors[Selecting] = Selectors(population)
    known: dict[Key, Selecting] = {}
    for key, selector, space in steps:
        known.pop(key, None)
        if selector is None:
            subject.drop(key)
        else:
            known[key] = Selecting(selector, space)
            subject.put(key, known[key], space)
    found = list(subject.of(namespace, labels))
    assert len(found) == len(dict(found))
    assert dict(found) == {
        key: each
        for key, each in known.items()
        if each.namespace in ("", namespace) and selects(each.selector, labels)
    }
    assert all((key in subject) == (key in known) for key in NAMES)


def test_a_thousand_that_differ_in_one_label_are_not_tried_one_by_one() -> None:
    population = Population()
    for number in range(1000):
        population.put(Key("Pod", "shop", str(number)), {"tier": "front", "app": str(number)})
    subject: Selectors[Selecting] = Selectors(population)
    for number in range(1000):
        selector = {"tier": "front", "app": str(number)}
        subject.put(Key("Service", "shop", str(number)), Selecting(selector, "shop"), "shop")
    assert max(map(len, subject._filed.values())) == 1
