"""Edits of labels in the text of one manifest; all else stays as written. Pure.

Only the characters of the label change, wherever and however it is written: a comment beside a
label that goes stays as a line of its own. An edit whose result would not mean exactly "the same,
but for this label" is refused, never guessed.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

from control.kit.errors import ConfigError

_KEY = re.compile(
    r"([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
# Words that every YAML parser takes for text; others are quoted.
_PLAIN = re.compile(r"(?![yYnN]\Z)[A-Za-z][-_./A-Za-z0-9]*")


@dataclass(frozen=True, slots=True)
class Change:
    """One label to set, or to remove (`value` None)."""

    key: str
    value: str | None


def parse_change(text: str) -> Change:
    """Parse `key=value` or `key-`, as kubectl has them; ConfigError otherwise."""
    key, equals, value = text.partition("=")
    if not equals and text.endswith("-"):
        key, wanted = text[:-1], None
    elif equals:
        wanted = value
    else:
        raise ConfigError(f"{text!r}: write key=value, or key- to remove the label")
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{key!r} is not a label key")
    if wanted is not None and not _VALUE.fullmatch(wanted):
        raise ConfigError(f"{wanted!r} is not a label value")
    return Change(key, wanted)


def edit(text: str, change: Change, item: int | None = None) -> str:
    """The text of the document after the change; the same text when nothing changes.

    `item`: the place of the object in a document that is a list of objects.
    """
    after, is_good = text, False
    try:
        before = yaml.safe_load(text)
        wanted = _with_change(before, change, item)
        if wanted == before:
            return text
        after = _Document(text, item).changed(change)
        is_good = _normal(yaml.safe_load(after), item) == _normal(wanted, item)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    if not is_good:
        said = f"{change.key}-" if change.value is None else f"{change.key}={change.value}"
        raise ConfigError(
            f"the labels are written in a form that is not edited here; set it yourself: {said}"
        )
    return after


def _object(value: Any, item: int | None) -> Any:
    return value if item is None else value["items"][item]


def _with_change(value: Any, change: Change, item: int | None) -> Any:
    wanted = deepcopy(value)
    metadata = _object(wanted, item)["metadata"]
    labels = dict(metadata.get("labels") or {})
    if labels.get(change.key) == change.value:
        return value
    labels.pop(change.key, None)
    if change.value is not None:
        labels[change.key] = change.value
    metadata["labels"] = labels
    return wanted


def _normal(value: Any, item: int | None) -> Any:
    """No labels and empty labels are the same."""
    found = _object(value, item)
    if not found["metadata"].get("labels"):
        found["metadata"].pop("labels", None)
    return value


class _Document:
    """One document's text and the places in it; offsets are in characters."""

    def __init__(self, text: str, item: int | None) -> None:
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if item is not None:
            root = _pair(root, "items")[1].value[item]
        self._metadata_key, self._metadata = _pair(root, "metadata")

    def changed(self, change: Change) -> str:
        try:
            key, labels = _pair(self._metadata, "labels")
        except LookupError:
            return self._begin(change)
        if isinstance(labels, yaml.ScalarNode):  # `labels:` and nothing, or null
            return self._put(_start(labels), _end(labels), f"{{{self._entry(change)}}}")
        if _start(labels) < _end(key):
            raise ValueError("an alias: others have the same labels")
        for index, (name, value) in enumerate(labels.value):
            if name.value == change.key:
                if change.value is not None:
                    return self._put(_start(value), _end(value), self._quoted(change.value))
                return self._removed(key, labels, index)
        return self._added(labels, change)

    def _begin(self, change: Change) -> str:
        """Insert the first label before the first field of the metadata."""
        if self._metadata.flow_style:
            start = self._text.index("{", _start(self._metadata)) + 1
            return self._put(start, start, f"{self._word('labels')}: {{{self._entry(change)}}}, ")
        start, indent = self._own_line(self._metadata.value[0][0])
        lines = f"{indent}labels:{self._newline}{indent}  {self._entry(change)}{self._newline}"
        return self._put(start, start, lines)

    def _added(self, labels: yaml.MappingNode, change: Change) -> str:
        if labels.flow_style:
            start = self._text.index("{", _start(labels)) + 1
            return self._put(start, start, self._entry(change) + (", " if labels.value else ""))
        start, indent = self._own_line(labels.value[0][0])
        return self._put(start, start, f"{indent}{self._entry(change)}{self._newline}")

    def _removed(self, key: yaml.Node, labels: yaml.MappingNode, index: int) -> str:
        name, value = labels.value[index]
        if labels.flow_style:
            return self._removed_from_flow(name, value)
        if value.style in ("|", ">"):
            raise ValueError("a text of several lines")
        start, indent = self._own_line(name)
        rest, end = self._rest_of_line(_end(value))
        kept = f"{indent}{rest}{self._newline}" if rest else ""
        text = self._put(start, end, kept)
        if len(labels.value) > 1:
            return text
        colon = self._text.index(":", _end(key)) + 1
        said, first = self._rest_of_line(colon)
        if said or kept or self._text[first:start].strip():  # comments: leave them their place
            return f"{text[:colon]} {{}}{text[colon:]}"
        start, _ = self._own_line(key)
        return text[:start] + text[first:]

    def _removed_from_flow(self, name: yaml.Node, value: yaml.Node) -> str:
        """Remove the entry and one comma; comments and lines beside it stay."""
        start, end = _start(name), _end(value)
        after = re.compile(r"\s*,[ \t]*").match(self._text, end)
        if after:
            return self._put(start, after.end(), "")
        before = re.compile(r"\s*,\s*$").search(self._text[:start])
        return self._put(before.start() if before else start, end, "")

    def _own_line(self, node: yaml.Node) -> tuple[int, str]:
        """(start of the node's line, its indentation); ValueError: it shares the line."""
        start = self._text.rfind("\n", 0, _start(node)) + 1
        indent = self._text[start : _start(node)]
        if indent.strip():
            raise ValueError("not on a line of its own")
        return start, indent

    def _rest_of_line(self, start: int) -> tuple[str, int]:
        """(what follows on the line, without spaces; start of the next line)"""
        end = self._text.find("\n", start)
        end = len(self._text) if end < 0 else end + 1
        return self._text[start:end].strip(), end

    def _put(self, start: int, end: int, new: str) -> str:
        gap = " " if new and self._text[start - 1 : start] == ":" else ""
        return self._text[:start] + gap + new + self._text[end:]

    def _entry(self, change: Change) -> str:
        return f"{self._word(change.key)}: {self._quoted(change.value or '')}"

    def _word(self, key: str) -> str:
        return json.dumps(key) if self._is_json() else _plain_or_quoted(key)

    def _quoted(self, value: str) -> str:
        return json.dumps(value) if self._is_json() else _plain_or_quoted(value)

    def _is_json(self) -> bool:
        quoted = getattr(self._metadata_key, "style", None) == '"'
        return quoted and bool(self._metadata.flow_style)


def _plain_or_quoted(text: str) -> str:
    """As a YAML string: `true` and `1` need quotes, and `no` for older parsers."""
    plain = _PLAIN.fullmatch(text) and isinstance(yaml.safe_load(text), str)
    return text if plain else json.dumps(text)


def _pair(node: yaml.Node | None, name: str) -> tuple[yaml.Node, Any]:
    """(key, value) of a mapping; LookupError when it has no such key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return key, value
    raise LookupError(name)


def _start(node: yaml.Node) -> int:
    assert node.start_mark is not None
    return int(node.start_mark.index)


def _end(node: yaml.Node) -> int:
    assert node.end_mark is not None
    return int(node.end_mark.index)
