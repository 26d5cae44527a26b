"""Pods as the mesh sees them: enrolled, captured, and each of them once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.model.intent import Intent, NamespaceIntent
from control.server.compile import residents
from control.server.compile.pods import MIRROR_ANNOTATION
from control.server.compile.residents import Move, Residents
from control.server.compile.settings import Settings
from control.server.sources.objects import Key, Namespace, PodObject
from tests.support.manifests import objects, pod
from tests.support.mesh_worlds import AMBIENT, Reported, mirror, namespace


def pods(*texts: str) -> list[PodObject]:
    return list(objects("".join(texts)).pods)


def space(labels: str = "") -> Namespace:
    return objects(namespace(labels)).namespaces[0]


def put(subject: Residents, *found: PodObject) -> list[Move]:
    for each in found:
        subject.put_pod(each.meta.key, each)
    return settled(subject)


def settled(subject: Residents) -> list[Move]:
    return [each for each in subject.settle() if each is not None]


def intents(subject: Residents) -> dict[str, Intent]:
    return {each.name: each for each in subject.pods.current.values()}


def test_a_label_on_the_namespace_moves_its_pods_and_any_other_nobody() -> None:
    subject = Residents(Settings(), Reported())
    moves = put(subject, *pods(pod("a"), pod("b", "other", address="10.1.0.2")))
    assert [each.before for each in moves] == [None, None]
    subject.put_namespace("shop", space("team: x"))
    assert settled(subject) == []
    subject.put_namespace("shop", space(AMBIENT))
    (move,) = settled(subject)
    assert (move.key.name, move.after is not None and move.after.is_enrolled) == ("a", True)
    assert subject.enrolled_in("shop") == subject.enrolled_in("") == 1
    assert subject.namespaces.current["shop"] == NamespaceIntent("shop", True)
    assert subject.namespaces.current["other"] == NamespaceIntent("other", False)


def test_a_pod_that_is_as_it_was_has_not_moved() -> None:
    subject = Residents(Settings(), Reported())
    put(subject, *pods(pod("a")))
    assert put(subject, *pods(pod("a"))) == []
    list(subject.report([intents(subject)["a"].uid]))
    assert settled(subject) == []


def test_a_report_moves_the_pod_that_it_is_about() -> None:
    reported = Reported()
    subject = Residents(Settings(), reported)
    put(subject, *pods(pod("a"), pod("b", address="10.1.0.2")))
    uid = intents(subject)["a"].uid
    reported.pods[uid] = ()
    list(subject.report([uid, "unknown"]))
    (move,) = settled(subject)
    assert (move.key.name, move.after is not None and move.after.is_captured) == ("a", True)
    assert [each.is_captured for each in subject.with_uid(uid)] == [True]


def test_of_two_pods_with_one_uid_the_last_counts_whoever_came_first() -> None:
    both = pods(*(pod(name).replace("labels:", "uid: u, labels:") for name in "ab"))
    for found in (both, both[::-1]):
        subject = Residents(Settings(), Reported())
        put(subject, *found)
        assert subject.pods.current["u"].name == "b"
        subject.put_pod(Key("Pod", "shop", "b"), None)
        settled(subject)
        assert subject.pods.current["u"].name == "a"


def test_a_mirror_is_true_until_an_older_one_is_there() -> None:
    subject = Residents(Settings(), Reported())
    (late,), (early,) = pods(mirror("late", "3")), pods(mirror("early", "1"))
    put(subject, late)
    uid = late.meta.annotations[MIRROR_ANNOTATION]
    assert intents(subject)["late"].uid == uid
    assert {each.key.name for each in put(subject, early)} == {"early", "late"}
    assert subject.pods.current[uid].name == "early"
    assert len(subject.pods.current) == 2
    subject.put_pod(early.meta.key, None)
    settled(subject)
    assert subject.pods.current.keys() == {uid}


def test_a_crowd_of_false_mirrors_is_not_looked_through_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0
    age = residents._age

    def counted(pod: PodObject) -> tuple[tuple[bool, str, str], str]:
        nonlocal asked
        asked += 1
        return age(pod)

    monkeypatch.setattr(residents, "_age", counted)
    (first,) = pods(mirror("m", "1"))
    subject = Residents(Settings(), Reported())
    for at in range(200):
        key = first.meta.key._replace(name=f"m{at}")
        subject.put_pod(key, replace(first, meta=replace(first.meta, key=key)))
    assert asked < 3 * 200
    assert len(settled(subject)) == 200


def test_nodes_and_identities_are_those_of_pods_that_run() -> None:
    subject = Residents(Settings(), Reported())
    ended = pod("done", address="10.1.0.2").replace("Running", "Failed").replace("n1", "n2")
    put(subject, *pods(pod("a"), pod("b", address="10.1.0.3"), ended))
    assert set(subject.nodes) == {"n1"}
    assert len(subject.uids_on("n1")) == 2
    assert subject.identities == {("n1", "shop", "default"): 2}
    assert {each.meta.name for each in subject.stated_in("shop")} == {"a", "b"}
    (named,) = pods(pod("b", address="10.1.0.3", labels="app: b, tier: x"))
    put(subject, named)
    assert [each.meta.name for each in subject.stated_in("shop", {"app": "b"})] == ["b"]
    assert subject.stated_in("shop", {"app": "b", "tier": "y"}) == []
    assert subject.stated_in("nowhere", {"app": "b"}) == []
    for name in ("a", "b"):
        subject.put_pod(Key("Pod", "shop", name), None)
    settled(subject)
    assert not subject.nodes
    assert not subject.identities


def test_pods_that_stay_as_they_are_are_steps_too() -> None:
    """Others have their turn, however many pods a label of a namespace means nothing to."""
    subject = Residents(Settings(), Reported())
    put(subject, *pods(*(pod(name, address=f"10.1.0.{at}") for at, name in enumerate("abc"))))
    subject.put_namespace("shop", space("tulle.io/path: direct"))
    list(subject.report([each.uid for each in intents(subject).values()]))
    steps = list(subject.settle())
    assert set(steps) == {None}
    assert len(steps) >= 3
