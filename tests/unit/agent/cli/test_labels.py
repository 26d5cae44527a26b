"""Label edits change the label and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from agent.cli.labels import Change, edit, parse_change
from control.kit.errors import ConfigError

BLOCK = """\
# who: the shop team
apiVersion: v1
kind: Namespace
metadata:
  name: shop      # short
  labels:
    team: "7"     # a text
    mode: off-peak
  annotations: {a: b}
"""


def test_adding_keeps_every_other_line() -> None:
    after = edit(BLOCK, Change("tulle.io/dataplane-mode", "ambient"))
    assert [line for line in after.splitlines() if "tulle.io" not in line] == BLOCK.splitlines()
    assert yaml.safe_load(after)["metadata"]["labels"] == {
        "tulle.io/dataplane-mode": "ambient",
        "team": "7",
        "mode": "off-peak",
    }


def test_replacing_and_removing_touch_one_line() -> None:
    replaced = edit(BLOCK, Change("team", "8"))
    assert replaced == BLOCK.replace('"7"', '"8"')
    assert edit(BLOCK, Change("mode", None)) == BLOCK.replace("    mode: off-peak\n", "")


def test_nothing_to_do_changes_nothing() -> None:
    assert edit(BLOCK, Change("absent", None)) == BLOCK
    assert edit(BLOCK, Change("team", "7")) == BLOCK


def test_the_first_label_and_the_last() -> None:
    bare = "kind: Namespace\nmetadata:\n  name: a  # kept\n"
    added = edit(bare, Change("x", "y"))
    assert yaml.safe_load(added)["metadata"] == {"name": "a", "labels": {"x": "y"}}
    assert "name: a  # kept" in added
    assert yaml.safe_load(edit(added, Change("x", None)))["metadata"] == {"name": "a"}


@pytest.mark.parametrize(
    "text",
    [
        "kind: Namespace\nmetadata: {name: a, labels: {k: v}}\n",
        "kind: Namespace\nmetadata:\n  name: a\n  labels: {k: v}\n",
        '{"kind": "Namespace", "metadata": {"name": "a", "labels": {"k": "v"}}}\n',
        "kind: Namespace\nmetadata:\n  name: a\n  labels:\n    k: v\n",
    ],
)
def test_every_shape_means_the_same(text: str) -> None:
    labels = yaml.safe_load(edit(text, Change("x", "y")))["metadata"]["labels"]
    assert labels == {"k": "v", "x": "y"}
    assert not yaml.safe_load(edit(text, Change("k", None)))["metadata"].get("labels")


# Pieces of manifests that people write; `#N` marks a comment, which must outlive every edit.
METADATA = (
    "metadata:  #1\n  #2\n  name: shop  #3\n{labels}  #4\n  annotations: {{a: b}}  #5\n",
    "metadata:\n      name: shop #1\n{deep}      #2\n",
    "metadata: {{name: shop, {flow}}} #1\n",
    "metadata: {{ #1\n  name: shop, #2\n  {flow} #3\n}}\n",
    '"metadata": {{"name": "shop", {json}}} #1\n',
)
LABELS = (
    ("", "", ""),
    ("labels: #6\n  #7\n  k: v  #8\n  #9\n", "labels: {k: v}", '"labels": {"k": "v"}'),
    ("labels:\n  a: b #6\n  k: 'v' #7\n  z: \"y\"\n", "labels: {a: b, k: v, z: y}", '"labels": {}'),
    ("labels:\n  k: v\n", "labels: {k: v, z: y}", '"labels": {"a": "b", "k": "v"}'),
    ("labels: {k: v} #6\n", "labels: {a: b, k: v,}", '"labels":{"k":"v","a":"b"}'),
    ("labels: { #6\n    k: v, #7\n    a: b #8\n  } #9\n", "labels: {}", '"labels": {\n"k":"v"\n}'),
    ("labels: #6\n", "labels: ", '"labels": null'),
    ("labels: {} #6\n", "labels: {\n  k: v\n  }", '"labels": {"k": "v" }'),
    ("labels:\n  ? k\n  : v\n", "labels: ~", '"labels": {}'),
)


def documents() -> Iterator[str]:
    for metadata in METADATA:
        for block, flow, in_json in LABELS:
            lines = block.splitlines(keepends=True)
            text = metadata.format(
                labels="".join(f"  {line}" for line in lines),
                deep="".join(f"      {line}" for line in lines),
                flow=flow,
                json=in_json or '"x": "y"',
            )
            for ending in ("\n", "\r\n"):
                for start in ("", "\n", " # head\n", "\ufeff"):
                    whole = f"{start}kind: Namespace #h\n{text}spec: {{}} #e\n# tail"
                    yield whole.replace("\n", ending)


CHANGES = [Change("k", None), Change("k", "w"), Change("a.b/n", "ambient")]


@pytest.mark.parametrize("change", CHANGES)
def test_every_comment_and_every_other_line_survives(change: Change) -> None:
    refused = 0
    for text in documents():
        before = yaml.safe_load(text)
        try:
            after = edit(text, change)
        except ConfigError:
            refused += 1
            continue
        for mark in re.findall(r"#\w", text):
            assert mark in after, (text, after)
        assert after.count("\r\n") == after.count("\n") or "\r\n" not in text
        labels = dict(before["metadata"].get("labels") or {})
        labels.pop(change.key, None)
        labels |= {change.key: change.value} if change.value is not None else {}
        found = yaml.safe_load(after)
        assert (found["metadata"].pop("labels", None) or {}) == labels
        before["metadata"].pop("labels", None)
        assert found == before
    assert refused <= 16, "only a key that is written with `?` is left to its author"


@pytest.mark.parametrize(
    "text",
    [
        "x: &x {k: v}\nmetadata: {name: a, labels: *x}\n",
        "x: &x {k: v}\nmetadata:\n  name: a\n  labels:\n    <<: *x\n",
        "metadata:\n  name: a\n  labels:\n    k: &v v\nother: *v\n",
        "metadata:\n  name: a\n  labels:\n    k: |-\n      v\n",
        "metadata: {name: a, labels: {k}}\nx: !!python/none\n",
    ],
)
def test_a_form_that_cannot_be_edited_is_refused_and_names_the_change(text: str) -> None:
    with pytest.raises(ConfigError, match="set it yourself: k-"):
        edit(text, Change("k", None))


def test_an_object_in_a_list_is_edited_where_it_stands() -> None:
    text = "kind: List\nitems: #1\n- metadata: {name: a} #2\n- metadata:\n    name: b #3\n"
    after = edit(text, Change("x", "yy"), 1)
    assert after.replace("    labels:\n      x: yy\n", "") == text
    assert edit(text, Change("x", "yy"), 0).count("{labels: {x: yy}, name: a} #2") == 1


@pytest.mark.parametrize("value", ["true", "1", "1e3", "", "null", "2026-01-01"])
def test_a_value_stays_a_text(value: str) -> None:
    for text in (BLOCK, edit(BLOCK, Change("x", "old"))):
        assert yaml.safe_load(edit(text, Change("x", value)))["metadata"]["labels"]["x"] == value


def test_words_of_the_command_line() -> None:
    assert parse_change("a.b/c=d") == Change("a.b/c", "d")
    assert parse_change("a=") == Change("a", "")
    assert parse_change("a-") == Change("a", None)
    for wrong in ("a", "=b", "a=b c", "-a=b", "a/b/c=d", "x: y=z"):
        with pytest.raises(ConfigError):
            parse_change(wrong)
