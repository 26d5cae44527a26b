"""A file's content: good ones, and the faults of others with their lines."""

from __future__ import annotations

import json

from control.server.sources.content import read_content
from tests.support.manifests import pod, policy


def test_a_file_is_good_if_all_of_it_was_understood() -> None:
    assert read_content("a.yaml", (pod() + policy("{}")).encode()).is_good
    assert not read_content("a.yaml", (pod() + "---\n3\n").encode()).is_good
    assert not read_content("a.yaml", (pod() + policy("{rules: 3}")).encode()).is_good


def test_a_fault_among_json_has_its_line() -> None:
    value = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": 3}}}
    text = "---\n" + json.dumps(value | {"metadata": {"name": "b"}}) + "\n---\n"
    content = read_content("a.yaml", (text + json.dumps(value, indent=1)).encode())
    assert [each.key.name for each in content.entries] == ["b", "a"]
    why = content.entries[1].why
    assert why is not None
    assert (why.line, why.reason) == (10, "invalid")
    assert content.entries[0].object is not None


def test_more_pods_than_etcd_takes_bytes_fit_into_one_file() -> None:
    """Thousands of pods as `kubectl get pods -A -o json` prints them."""
    value = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "managedFields": [{"x": "y" * 5000}]},
        "status": {"phase": "Running"},
    }
    items = [value | {"metadata": value["metadata"] | {"name": f"p-{n}"}} for n in range(1200)]  # type: ignore[operator]  # a dict
    text = json.dumps({"apiVersion": "v1", "items": items, "kind": "List"}, indent=4)
    assert len(text) > 4 << 20
    content = read_content("a.json", text.encode())
    assert content.is_good
    assert len(content.entries) == 1200
