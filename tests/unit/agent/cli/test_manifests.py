"""Documents: split with their lines, one value each."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.manifests import Ref, read_documents, split
from control.kit.errors import ConfigError

TEXT = """\
# licence
---
apiVersion: v1
kind: Service
metadata: {name: web}   # mine
spec: {ports: [{port: 80}]}
--- # second
kind: Pod
metadata: {name: web, namespace: shop}
---
"""


def test_documents_know_where_they_start() -> None:
    found = split(TEXT, "x.yaml")
    assert [(item.ref, item.line) for item in found] == [
        (Ref("Service", "default", "web"), 3),
        (Ref("Pod", "shop", "web"), 8),
    ]
    assert all(TEXT[item.start :].startswith(item.text) for item in found)


def test_a_document_takes_a_new_value_and_its_text() -> None:
    document = split(TEXT, "x.yaml")[0]
    document.replace({"kind": "Service", "metadata": {"name": "other"}})
    assert document.ref == Ref("Service", "default", "other")
    assert split(document.text, "y.yaml")[0].value == document.value


def test_a_cluster_kind_has_no_namespace() -> None:
    (found,) = split("kind: Node\nmetadata: {name: n1, namespace: x}\n", "n.yaml")
    assert (found.ref, str(found.ref)) == (Ref("Node", "", "n1"), "Node n1")
    assert str(Ref("Pod", "shop", "web")) == "Pod shop/web"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        read_documents(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: A\nmetadata: {name: a}\n---\nkind: [\n", "x.yaml:5: "),
        ("kind: A\nmetadata: {name: a}\n---\nname: a\n", "x.yaml:4: not a Kubernetes object"),
        ("kind: A\nmetadata: {}\n", "x.yaml:1: A: no metadata.name"),
        ("- a\n", "x.yaml:1: not a Kubernetes object"),
    ],
)
def test_errors_name_the_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split(text, "x.yaml")
    assert str(caught.value).startswith(told)
