"""Documents: split with their lines, edited one at a time, saved as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.manifests import Manifests, Ref, join, split
from agent.lab import objects
from agent.lab.spec import parse
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
SPEC = "name: x\nnodes: {n1: {}}\npods:\n  shop/web: {node: n1, command: [true_]}\n"


def test_documents_know_where_they_start() -> None:
    found = split(TEXT, "x.yaml")
    assert [(item.ref, item.line) for item in found] == [
        (Ref("Service", "default", "web"), 3),
        (Ref("Pod", "shop", "web"), 8),
    ]
    assert all(TEXT[item.start :].startswith(item.text) for item in found)
    assert [item.value for item in split(join(found), "y")] == [item.value for item in found]


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


def test_putting_one_object_leaves_the_others_as_written(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(TEXT)
    (tmp_path / "lab.yaml").write_text("name: no manifest\n")
    found = Manifests.load(tmp_path)
    assert found.put(
        {"kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}, "n": 1}, "z"
    ) == ("x.yaml")
    assert found.put({"kind": "Namespace", "metadata": {"name": "shop"}}, "new.yaml") == "new.yaml"
    found.save(tmp_path)
    assert "metadata: {name: web}   # mine" in (tmp_path / "x.yaml").read_text()
    again = Manifests.load(tmp_path)
    assert [value["n"] for value in again.of_kind("Pod")] == [1]
    again.remove(Ref("Namespace", "", "shop"))
    again.save(tmp_path, {"new.yaml"})
    assert not (tmp_path / "new.yaml").exists()


def test_pods_must_be_in_both_places() -> None:
    spec = parse(SPEC, "lab.yaml")
    manifests = Manifests({"x.yaml": split(TEXT, "x.yaml")})
    objects.check_pods(spec, manifests)
    with pytest.raises(ConfigError, match=r"x\.yaml:8: Pod shop/web is not in lab\.yaml"):
        objects.check_pods(parse("name: x\nnodes: {n1: {}}\n", "lab.yaml"), manifests)
    with pytest.raises(ConfigError, match=r"lab\.yaml: shop/web is in no manifest"):
        objects.check_pods(spec, Manifests())
    twice = split("kind: Pod\nmetadata: {name: web, namespace: shop}\n", "y.yaml")
    manifests.files["y.yaml"] = twice
    with pytest.raises(ConfigError, match=r"y\.yaml:1: Pod shop/web is also in x\.yaml:8"):
        objects.check_pods(spec, manifests)
