"""Objects of an API server, one by one: which are in force, and when something has changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.sources.cluster import PLACE, Cluster
from control.server.sources.kinds import KINDS, POLICY_KINDS
from control.server.sources.objects import AuthorizationPolicy

Fields = dict[str, Any]


class Bench:
    def __init__(self) -> None:
        self.changes = 0
        self.cluster = Cluster(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def put(self, kind: str, name: str = "a", uid: str = "u-1", **fields: Any) -> Any:
        metadata = {"name": name, "namespace": "shop", "uid": uid, **fields.pop("metadata", {})}
        return self.cluster.kinds[kind].put(json.dumps({"metadata": metadata, **fields}).encode())

    def pods(self) -> list[str]:
        return [each.meta.name for each in self.cluster.snapshot().objects.pods]


def test_objects_come_sorted_whatever_their_order() -> None:
    bench = Bench()
    for name in ("c", "a", "b"):
        assert bench.put("Pod", name) == ("shop", name)
    assert bench.pods() == ["a", "b", "c"]
    assert bench.changes == 3


def test_an_object_without_a_difference_that_counts_is_no_change() -> None:
    bench = Bench()
    bench.put("Pod", status={"phase": "Running"}, metadata={"resourceVersion": "1"})
    first = bench.cluster.snapshot().objects.pods
    bench.put("Pod", status={"phase": "Running", "qosClass": "x"}, metadata={"managedFields": []})
    assert bench.changes == 1
    assert bench.cluster.snapshot().objects.pods is first
    bench.put("Pod", status={"phase": "Failed"})
    assert bench.changes == 2


def test_what_a_list_does_not_name_is_gone() -> None:
    bench = Bench()
    for name in ("a", "b"):
        bench.put("Pod", name)
    assert bench.cluster.kinds["Pod"].keep({("shop", "b")}) == 1
    assert bench.pods() == ["b"]
    assert bench.cluster.kinds["Pod"].keep({("shop", "b")}) == 0
    bench.cluster.kinds["Pod"].gone(b'{"metadata":{"name":"b","namespace":"shop"}}')
    assert bench.pods() == []
    bench.cluster.kinds["Pod"].gone(b'{"metadata":{"name":"b","namespace":"shop"}}')
    assert bench.changes == 4


def test_the_pods_of_a_deployment_are_each_their_own() -> None:
    bench = Bench()

    def put(name: str, **changed: Any) -> Any:
        spec = {"nodeName": f"node-of-{name}", "containers": [{"ports": [{"containerPort": 80}]}]}
        status = {"phase": "Running", "podIP": f"10.0.0.{len(name)}"}
        return bench.put("Pod", name, f"u-{name}", spec=spec, status={**status, **changed})

    for name in ("a", "aa", "aaa"):
        assert put(name) == ("shop", name)
    pods = bench.cluster.snapshot().objects.pods
    assert [(each.meta.uid, each.node, each.addresses) for each in pods] == [
        (f"u-{name}", f"node-of-{name}", (bytes((10, 0, 0, len(name))),))
        for name in ("a", "aa", "aaa")
    ]
    assert put("aa", podIP="nonsense") == ("shop", "aa")
    (problem,) = bench.cluster.snapshot().problems
    assert "last good version" in problem.message
    assert put("aa") == ("shop", "aa")
    assert bench.cluster.snapshot().problems == ()
    assert bench.cluster.kinds["Pod"].keep({("shop", "aaa")}) == 2


def test_a_broken_object_keeps_its_last_good_version() -> None:
    bench = Bench()
    bench.put("Pod", status={"podIP": "10.0.0.1"})
    bench.put("Pod", status={"podIP": "nonsense"})
    bench.put("Pod", status={"podIP": "more nonsense"})
    snapshot = bench.cluster.snapshot()
    assert len(snapshot.objects.pods[0].addresses) == 1
    (problem,) = snapshot.problems
    assert str(problem).startswith("kubernetes: Pod shop/a: status.podIP")
    assert "last good version" in problem.message
    bench.put("Pod", status={"podIP": "10.0.0.2"})
    assert bench.cluster.snapshot().problems == ()


def test_a_broken_object_of_another_uid_has_no_last_good_version() -> None:
    bench = Bench()
    bench.put("Pod", status={"podIP": "10.0.0.1"})
    bench.put("Pod", uid="u-2", status={"podIP": "nonsense"})
    assert bench.pods() == []
    assert "ignored" in bench.cluster.snapshot().problems[0].message
    bench.put("Pod", uid="u-2", status={"podIP": "still nonsense"})
    assert bench.pods() == []


def test_a_policy_that_never_was_good_denies_and_so_does_one_made_anew() -> None:
    bench = Bench()
    bench.put("AuthorizationPolicy", spec={"rules": 3})
    (found,) = bench.cluster.snapshot().objects.authorization_policies
    assert found.broken
    bench.put("AuthorizationPolicy", spec={"rules": 4})
    (found,) = bench.cluster.snapshot().objects.authorization_policies
    assert "rules" in found.broken
    bench.put("AuthorizationPolicy", spec={})
    bench.put("AuthorizationPolicy", uid="u-2", spec={"rules": 5})
    (found,) = bench.cluster.snapshot().objects.authorization_policies
    assert isinstance(found, AuthorizationPolicy)
    assert found.broken, "the one before was another object"


def test_a_problem_goes_with_its_object() -> None:
    bench = Bench()
    bench.put("Pod", status={"podIP": "nonsense"})
    assert bench.cluster.snapshot().problems[0].file == PLACE
    assert bench.cluster.kinds["Pod"].keep(set()) == 1
    assert bench.cluster.snapshot().problems == ()


def test_bytes_that_are_no_object_have_no_effect() -> None:
    bench = Bench()
    for data in (b"", b"[]", b"{}", b'{"metadata":{}}', b'{"metadata":{"name":"A B"}}'):
        assert bench.cluster.kinds["Pod"].put(data) is None
        bench.cluster.kinds["Pod"].gone(data)
    assert bench.changes == 0


FIELDS = ("metadata", "spec", "status", "name", "namespace", "uid", "labels", "containers", "ports")
MORE = ("conditions", "podIPs", "ip", "rules", "selector", "endpoints", "addresses", "mtls", "type")
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just("10.0.0.1")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS + MORE), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_no_object_ends_the_process(kind: str, value: dict[str, Any]) -> None:
    """It is in force, a problem, both, or nothing at all; and a policy is never nothing."""
    meta = {**_fields(value.get("metadata")), "name": "a", "namespace": "shop"}
    cluster = Cluster()
    for each in ({**value, "metadata": meta}, value):
        data = json.dumps(each).encode()
        cluster.kinds[kind].put(data)
        snapshot = cluster.snapshot()
        if kind in POLICY_KINDS:
            assert snapshot.objects.counts()[kind] >= 1
        cluster.kinds[kind].gone(data if each is value else b"")


def _fields(value: Any) -> Fields:
    return value if isinstance(value, dict) else {}


@pytest.mark.parametrize("levels", [300, 950, 9_990])
def test_a_policy_with_something_too_deep_beside_its_spec_is_in_force(levels: int) -> None:
    bench = Bench()
    bench.put("AuthorizationPolicy", spec={"action": "DENY"}, status={"a": None})
    whole = bench.cluster.snapshot().objects.authorization_policies
    metadata = b'"metadata":{"name":"a","namespace":"shop","uid":"u-1"}'
    text = b'{%s,"spec":{"action":"DENY"},"status":' % metadata
    data = text + b'{"a":' * levels + b"1" + b"}" * levels + b"}"
    new = Bench()
    assert new.cluster.kinds["AuthorizationPolicy"].put(data) == ("shop", "a")
    assert new.cluster.snapshot().objects.authorization_policies == whole
