"""Edits of labels in the text of one manifest; all else stays as written. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from control.kit.errors import ConfigError

_KEY = re.compile(
    r"([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")


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


def edit(text: str, change: Change) -> str:
    """The text of the document after the change; the same text when nothing changes."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    metadata = _child(root, "metadata")
    if not isinstance(metadata, yaml.MappingNode) or metadata.flow_style:
        return _rewritten(text, change)
    labels = _child(metadata, "labels")
    if labels is None or (isinstance(labels, yaml.ScalarNode) and not labels.value):
        if change.value is None:
            return text
        return _rewritten(text, change) if labels is not None else _begun(text, metadata, change)
    if not isinstance(labels, yaml.MappingNode):
        raise ConfigError("metadata.labels is not a mapping")
    if labels.flow_style or not labels.value or _spans_lines(labels):
        return _rewritten(text, change)
    return _changed(text, labels, change)


def _changed(text: str, labels: yaml.MappingNode, change: Change) -> str:
    lines = text.splitlines(keepends=True)
    for key, value in labels.value:
        if key.value != change.key:
            continue
        row = key.start_mark.line
        if change.value is None:
            if len(labels.value) == 1:
                return _rewritten(text, change)
            del lines[row]
        elif value.value != change.value:
            line = lines[row]
            start, end = value.start_mark.column, value.end_mark.column
            gap = "" if line[start - 1 : start] == " " else " "
            lines[row] = line[:start] + gap + _quoted(change.value) + line[end:]
        return "".join(lines)
    if change.value is None:
        return text
    first = labels.value[0][0].start_mark
    indent = " " * first.column
    lines.insert(first.line, f"{indent}{change.key}: {_quoted(change.value)}\n")
    return "".join(lines)


def _begun(text: str, metadata: yaml.MappingNode, change: Change) -> str:
    """Insert the first label before the first field of the metadata."""
    lines = text.splitlines(keepends=True)
    first = metadata.value[0][0].start_mark
    indent = " " * first.column
    added = f"{indent}labels:\n{indent}  {change.key}: {_quoted(change.value or '')}\n"
    lines.insert(first.line, added)
    return "".join(lines)


def _rewritten(text: str, change: Change) -> str:
    """Write the document afresh: its form cannot be edited line by line."""
    value = yaml.safe_load(text)
    labels = dict(value["metadata"].get("labels") or {})
    if change.value is None:
        if change.key not in labels:
            return text
        del labels[change.key]
    elif labels.get(change.key) == change.value:
        return text
    else:
        labels[change.key] = change.value
    value["metadata"]["labels"] = labels
    if not labels:
        del value["metadata"]["labels"]
    return yaml.safe_dump(value, sort_keys=False)


def _quoted(value: str) -> str:
    """The value as a YAML string: `true` and `1` need quotes."""
    return value if isinstance(yaml.safe_load(value or '""'), str) and value else f'"{value}"'


def _spans_lines(labels: yaml.MappingNode) -> bool:
    return any(key.start_mark.line != value.end_mark.line for key, value in labels.value)


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        pairs: list[tuple[yaml.Node, yaml.Node]] = node.value
        for key, value in pairs:
            if key.value == name:
                return value
    return None
