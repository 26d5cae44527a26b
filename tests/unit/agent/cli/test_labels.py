"""Label edits change the label and nothing else."""

from __future__ import annotations

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
    assert "labels" not in yaml.safe_load(edit(text, Change("k", None)))["metadata"]


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
