"""Quick and careful reading agree, and a file that may be wrong is not read quickly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.server.sources.content import NOTHING, read_carefully
from control.server.sources.quick import read_quickly
from tests.support.manifests import pod, policy

CLUSTER = Path(__file__).with_name("cluster.yaml").read_text()
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "a"}, "managedFields": [{}]},
    "spec": {"nodeName": "n1", "containers": [{"ports": [{"containerPort": 80}], "env": []}]},
    "status": {"podIP": "10.1.0.1", "phase": "Running"},
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "a"},
    "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": "http"}]},
}
POLICY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "p", "namespace": "shop", "generation": 3},
    "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "rules": [{"from": [{"source": {"principals": ["td/ns/shop/sa/*"]}}]}],
    },
}
LIST = {"apiVersion": "v1", "items": [POD, SERVICE], "kind": "List"}
DOCUMENTS = (
    pod("a"),
    policy("{action: DENY}"),
    "---\n" + json.dumps(POD),
    "--- " + json.dumps(SERVICE),
    "---\n" + json.dumps(POD | {"metadata": {"name": "b", "namespace": "shop"}}),
    "---\n" + json.dumps(POLICY),
    "---\n" + json.dumps(POLICY, indent=1),
    "---\n\n" + json.dumps(LIST, indent=1),
    "---\n" + json.dumps(LIST, indent="\t"),
    "---\n{apiVersion: v1, kind: Secret}",
    '---\n{"apiVersion": "v1", "kind": "ConfigMap"}',
    "---\n# nothing",
)


@pytest.mark.parametrize("text", DOCUMENTS)
def test_each_of_these_is_read_quickly(text: str) -> None:
    assert read_quickly("a.yaml", text.encode(), {}) is not None


@settings(max_examples=40)
@given(st.lists(st.sampled_from(DOCUMENTS), max_size=5))
def test_both_ways_read_the_same(texts: list[str]) -> None:
    data = "\n".join(texts).encode()
    quick = read_quickly("a.yaml", data, {})
    careful = read_carefully("a.yaml", data, NOTHING)
    assert quick is not None
    assert [each for part in quick.values() for each in part.entries] == list(careful.entries)
    ignored = [kind for part in quick.values() for kind in part.ignored]
    assert {kind: ignored.count(kind) for kind in ignored} == careful.ignored


@pytest.mark.parametrize(
    "text",
    [
        "---\n]: x\n",
        "---\n3\n",
        CLUSTER,
        policy("{action: DENIED}"),
        '{"kind": "AuthorizationPolicy", "kind": "ConfigMap", "apiVersion": "v1"}',
        json.dumps(POLICY).replace('"rules"', '"rulse"'),
        json.dumps(POLICY).replace('"metadata"', '"spec": {}, "metadata"'),
        '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "A B"}}',
        '{"apiVersion": "v1", "kind": "PodList", "items": [3]}',
        '{"apiVersion": "v1", "kind": "Podd"}',
        "%YAML 1.2\n---\n{apiVersion: v1, kind: Secret}\n",
        "\ufeffa: b\0",
    ],
)
def test_what_may_be_wrong_is_left_to_care(text: str) -> None:
    assert read_quickly("a.yaml", text.encode(), {}) is None


def test_a_document_that_was_there_before_is_not_read_again() -> None:
    before = read_quickly("a.yaml", (pod("a") + pod("b") + pod("c") + pod("e")).encode(), {})
    assert before is not None
    after = read_quickly("a.yaml", (pod("a") + pod("x") + pod("c") + pod("d")).encode(), before)
    assert after is not None
    old, new = list(before.values()), list(after.values())
    assert (old[0] is new[0], old[2] is new[2]) == (True, True)
    moved = read_quickly("a.yaml", ("\n" + pod("a")).encode(), before)
    assert moved is not None
    assert [each.line for part in moved.values() for each in part.entries] == [4]


def test_items_of_a_list_have_their_lines() -> None:
    text = json.dumps({**LIST, "items": [POD, POD | {"metadata": {"name": "b"}}]}, indent=1)
    found = read_quickly("a.json", text.encode(), {})
    assert found is not None
    lines = [each.line for part in found.values() for each in part.entries]
    assert [text.splitlines()[line - 1].strip() for line in lines] == ["{", "{"]
    assert lines[0] == 4
    assert lines == [each.line for each in read_carefully("a.json", text.encode(), NOTHING).entries]
