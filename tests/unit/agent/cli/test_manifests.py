"""Documents: split with their lines, one value each."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.manifests import Ref, files, read_apart, read_documents, split
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


def test_every_document_that_cannot_be_read_is_named_and_hides_no_other() -> None:
    text = "kind: [\n---\nkind: A\nmetadata: {name: a}\n---\n- b\n"
    documents, errors = read_apart(text, "x.yaml")
    assert [str(each.ref) for each in documents] == ["A default/a"]
    assert [each.rpartition(": ")[0].partition(": ")[0] for each in errors] == [
        "x.yaml:2",
        "x.yaml:6",
    ]
    with pytest.raises(ConfigError, match=r"(?s)x\.yaml:2.*x\.yaml:6"):
        split(text, "x.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "%YAML 1.1\n---\nkind: A\nmetadata: {name: a}\n...\n",
        "# only a comment\n---\n--- {kind: A, metadata: {name: a}} # here\n---\t# end",
        "\ufeffkind: A\r\nmetadata: {name: a}\r\n---\r\n",
        "kind: List\nitems:\n- {kind: A, metadata: {name: a}}\n- 7\n",
    ],
)
def test_documents_as_people_write_them(text: str) -> None:
    assert [str(each.ref) for each in split(text, "x.yaml")] == ["A default/a"]


def test_files_are_those_that_the_control_plane_reads(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.json", "r7/c.yml", ".hidden/d.yaml", ".e.yaml", "f.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "r7" / "up").symlink_to(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "m").mkdir()
    (tmp_path / "other" / "g.yaml").touch()
    (tmp_path / "m" / "current").symlink_to(tmp_path / "other")
    assert files(tmp_path / "m") == [tmp_path / "m" / "current" / "g.yaml"]
    names = [str(each.relative_to(tmp_path)) for each in files(tmp_path)]
    assert len(names) == len({(tmp_path / name).resolve() for name in names}) == 4


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
        ("kind: A\nmetadata: {name: a, at: 2026-13-45}\n", "x.yaml:1: "),
        ("a: " + "[" * 5000 + "]" * 5000, "x.yaml:1: "),
    ],
)
def test_errors_name_the_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split(text, "x.yaml")
    assert str(caught.value).startswith(told)
