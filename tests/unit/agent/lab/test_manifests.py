"""The working copy: one object changes, its neighbours stay as written."""

from __future__ import annotations

from pathlib import Path

from agent.cli.manifests import Ref, split
from agent.lab.manifests import Manifests, join

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


def test_a_joined_file_splits_into_the_same_documents() -> None:
    found = split(TEXT, "x.yaml")
    assert [item.value for item in split(join(found), "y")] == [item.value for item in found]


def test_an_object_with_its_authors_text_keeps_it() -> None:
    found = Manifests({"x.yaml": split(TEXT, "x.yaml")})
    text = "kind: Service\nmetadata: {name: web} # rewritten\n"
    (wanted,) = split(text, "y.yaml")
    assert found.put(wanted.value, "new.yaml", text) == "x.yaml"
    assert "# rewritten" in join(found.files["x.yaml"])


def test_what_is_not_there_is_not_removed() -> None:
    assert Manifests().remove(Ref("Pod", "shop", "web")) is None
