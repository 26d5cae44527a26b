"""Selectors find their pods, as a search through all of them would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.server.compile.population import Population
from control.server.compile.selectors import selects
from control.server.sources.objects import Key

PODS = [Key("Pod", namespace, name) for namespace in ("shop", "mine") for name in "abc"]
LABELS = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), max_size=3)
STEPS = st.lists(st.tuples(st.sampled_from(PODS), st.one_of(st.none(), LABELS)), max_size=12)


@given(STEPS, LABELS, st.sampled_from(["", "shop", "mine", "other"]))
def test_it_selects_what_a_search_finds(
    steps: list[tuple[Key, dict[str, str] | None]], selector: dict[str, str], namespace: str
) -> None:
    subject, here = Population(), {}
    for pod, labels in steps:
        here.pop(pod, None)
        if labels is None:
            subject.drop(pod)
        else:
            subject.put(pod, labels)
            here[pod] = labels
    found = list(subject.selected(selector, namespace))
    spaces = {namespace} if namespace else {"shop", "mine"}
    assert len(found) == len(set(found))
    assert set(found) == {
        pod for pod, labels in here.items() if pod.namespace in spaces and selects(selector, labels)
    }
    assert set(subject.of(namespace)) == {pod for pod in here if pod.namespace == namespace}
    assert set(subject.namespaces()) == {pod.namespace for pod in here}


def test_the_rarest_pair_is_the_one_that_fewest_pods_have() -> None:
    subject = Population()
    for pod in PODS:
        subject.put(pod, {"tier": "front", "app": pod.name})
    assert subject.rarest({"tier": "front", "app": "a"}, "shop") == ("app", "a")
    assert subject.rarest({"app": "a", "tier": "back"}, "") == ("tier", "back")
