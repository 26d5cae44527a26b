"""YAML text → plain values with their line numbers. Knows no Kubernetes, touches no file.

It builds values from the parser's events, so nesting costs no stack, an alias is one more reference
to the same value, and every bound is checked as it is reached. Aliases count as if written out,
because a walk over the values takes that long. Scalars follow what Kubernetes reads: only true and
false are booleans, nothing is a date.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import yaml

from control.server.sources.problem import Invalid, NotYaml, TooLarge

FILE_BYTES_MAX = 64 * 1024 * 1024  # 16,000 pods as kubectl prints them, in one file
NODES_MAX = 2_000_000  # values in one file, some 300 MiB of memory: 6,000 such pods in YAML
DEPTH_MAX = 64  # the deepest Kubernetes kind has about 20 levels
ALIASES_MAX = 1000

Value: TypeAlias = "str | int | float | bool | Fields | Items | None"


class Fields(dict[str, Value]):
    """A mapping; `line` is where it begins, `lines` where each key stands.

    `weight` counts the values inside, each alias as often as it is used.
    """

    __slots__ = ("line", "lines", "weight")

    def __init__(self, line: int) -> None:
        self.line = line
        self.lines: dict[str, int] = {}
        self.weight = 1


class Items(list[Value]):
    """A sequence; `lines` has where each item begins, `weight` is as of Fields. `made` is for the
    reader of a list that several documents have, as one object: what it made of it."""

    __slots__ = ("line", "lines", "made", "weight")

    def __init__(self, line: int) -> None:
        self.line = line
        self.lines: list[int] = []
        self.weight = 1
        self.made: object = None


@dataclass(frozen=True, slots=True)
class YamlDocument:
    value: Value
    line: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A document that cannot be read: its text, the line of the fault, and the fault. `is_cut`:
    there is more of it, which nobody has looked at."""

    text: str
    line: int
    why: Invalid
    is_cut: bool = False


# The start of a document; `---` cannot stand at the start of a line inside one (YAML 1.2, 9.1.2).
# UTF-16 that was appended to UTF-8 has a NUL beside each letter.
_BEGIN = re.compile(r"^(?=\0?-\0?-\0?-\0?(?:\s|$))", re.MULTILINE)
_MARK = re.compile(r"\n---(?=\s|$)")  # the same, in text without NULs
_NO_LETTER = re.compile("[\ud800-\udfff]")  # bytes that could not be decoded
_UTF8 = "utf-8-sig"
# Byte order marks, as YAML and kubectl know them; the first that fits.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_CONTAINER_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq")}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_RADIX = re.compile(r"0x[0-9a-fA-F]{1,16}|0o[0-7]{1,22}")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_NUMERIC = frozenset("+-.0123456789")  # begin a number
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


def read_documents(data: bytes) -> list[YamlDocument]:
    """Every document of a file. Raises Invalid with the line where the file is broken."""
    return _parse(_text_of(data), _Builder())


def read_apart(data: bytes) -> list[YamlDocument | Broken]:
    """Every document of a file, the broken ones as such: one does not void the others.

    A line that begins with `---` ends the document before it, wherever it stands, so the documents
    of a broken file can be told apart without a parser. Never raises Invalid.
    """
    try:
        text = _text_of(data)
    except TooLarge as exc:
        part = data[:FILE_BYTES_MAX]
        return [Broken(_legible(part.decode(_codec_of(part), "replace")), 1, exc, is_cut=True)]
    except NotYaml as exc:
        codec = _codec_of(data)
        if codec != _UTF8:
            return [Broken(_legible(data.decode(codec, "replace")), 1, exc)]
        # Bytes that are no text break the documents that they are in.
        return _parse_apart(_as_written(data.decode(codec, "surrogateescape")))
    try:
        return list(_parse(text, _Builder()))
    except Invalid:
        return _parse_apart(text)


def read_part(text: str, line: int) -> list[YamlDocument]:
    """Every document of a part of a file that begins at this line. Raises Invalid."""
    return _parse(text, _Builder(line - 1))


def parts_of(data: bytes) -> Iterator[tuple[str, int]]:
    """The text between lines that begin a document, with its line. Raises Invalid for what cannot
    be told apart as simply as that."""
    text = _text_of(data)
    if "\0" in text or "\n%" in text or text.startswith("%"):
        raise NotYaml("directives, or no text", 1)
    line, since = 1, 0
    for found in _MARK.finditer(text):
        part = text[since : found.start() + 1]
        if part.strip():
            yield part, line
        line += part.count("\n")
        since = found.start() + 1
    if text[since:].strip():
        yield text[since:], line


def _parse_apart(text: str) -> list[YamlDocument | Broken]:
    found: list[YamlDocument | Broken] = []
    nodes = lines = 0
    for part in _BEGIN.split(text):
        builder = _Builder(lines, nodes)
        try:
            _check_letters(part, lines)
            found += _parse(part, builder)
        except Invalid as exc:
            found.append(Broken(_legible(_NO_LETTER.sub("\ufffd", part)), exc.line, exc))
        nodes = builder.nodes
        lines += part.count("\n")
    return found


def _check_letters(text: str, lines_before: int) -> None:
    """Raise NotYaml at the first byte that is no text."""
    found = _NO_LETTER.search(text)
    if found is not None:
        line = lines_before + text.count("\n", 0, found.start()) + 1
        raise NotYaml("the document is not UTF-8 text", line)


def _text_of(data: bytes) -> str:
    if len(data) > FILE_BYTES_MAX:
        raise TooLarge(f"the file has {len(data)} bytes, more than {FILE_BYTES_MAX}", 1)
    try:
        text = data.decode(_codec_of(data))
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise NotYaml(f"the file is not {exc.encoding[:6].upper()} text", line) from exc
    return _as_written(text)


def _as_written(text: str) -> str:
    if text.lstrip().startswith("{"):
        # JSON may be indented with tabs, YAML may not; inside a JSON string there are none.
        text = text.replace("\t", " ")
    # Files that were joined leave the mark of the later ones in the middle.
    return text.replace("\n\ufeff", "\n")


def _codec_of(data: bytes) -> str:
    return next((codec for mark, codec in _MARKS if data.startswith(mark)), _UTF8)


def _legible(text: str) -> str:
    """Text of a broken document for those who look for its kind: UTF-16 without a mark has a NUL
    beside each letter."""
    return text.replace("\0", "")


def _parse(text: str, builder: _Builder) -> list[YamlDocument]:
    try:
        return list(builder.documents(yaml.parse(text, Loader=yaml.CSafeLoader)))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = builder.line_of(mark) if mark is not None else builder.first_line
        raise NotYaml(f"not YAML: {exc.problem or exc.context}", line) from exc
    except yaml.YAMLError as exc:
        raise NotYaml(f"not YAML: {exc}", builder.first_line) from exc


class _Mark(Protocol):
    """A place in the text, of either of the library's parsers."""

    @property
    def line(self) -> int: ...


@dataclass(slots=True)
class _Open:
    """A container that is being filled."""

    value: Fields | Items
    is_mapping: bool
    key: str | None = None
    key_line: int = 0
    merges: list[tuple[Value, int]] = field(default_factory=list)


class _Builder:
    def __init__(self, lines_before: int = 0, nodes: int = 0) -> None:
        """`lines_before` the text in its file, and `nodes` values counted there already."""
        self.first_line = lines_before + 1
        self.nodes = nodes
        self._anchors: dict[str, Value] = {}
        self._stack: list[_Open] = []
        self._aliases = 0

    def documents(self, events: Iterator[yaml.Event]) -> Iterator[YamlDocument]:
        """A hundred events a pod: the most frequent kinds are asked for first, by class."""
        root: YamlDocument | None = None
        first, stack = self.first_line, self._stack
        for event in events:
            assert event.start_mark is not None, "events of a parser carry marks"
            line = event.start_mark.line + first
            if isinstance(event, yaml.ScalarEvent):
                done = self._take_scalar(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._count(line)
                closed = stack.pop()
                if closed.merges:
                    self._merge(closed)
                done = self._place(closed.value, closed.value.line)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._count(line)
                self._open(event, line)
                continue
            elif isinstance(event, yaml.AliasEvent):
                self._count(line)
                done = self._place(self._alias(event, line), line)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                root = None
                continue
            else:
                if isinstance(event, yaml.DocumentEndEvent) and root is not None:
                    yield root
                continue
            if done is not None and not stack:
                root = done

    def line_of(self, mark: _Mark) -> int:
        return mark.line + self.first_line

    def _count(self, line: int) -> None:
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise TooLarge(f"more than {NODES_MAX} values in one file", line)

    def _take_scalar(self, event: yaml.ScalarEvent, line: int) -> YamlDocument | None:
        """A key, or a value; the document if that is all of it."""
        self._count(line)
        if self._stack:
            top = self._stack[-1]
            if top.is_mapping and top.key is None:
                top.key, top.key_line = event.value, line
                return None
        value = _scalar(event, line)
        if event.anchor:
            self._anchors[event.anchor] = value
        return self._place(value, line)

    def _takes_key(self) -> bool:
        return bool(self._stack) and self._stack[-1].is_mapping and self._stack[-1].key is None

    def _open(self, event: yaml.CollectionStartEvent, line: int) -> None:
        if self._takes_key():
            raise NotYaml("a key must be a plain word", line)
        if event.tag is not None and event.tag not in _CONTAINER_TAGS:
            raise NotYaml(f"tag {event.tag!r} cannot be used here", line)
        if len(self._stack) >= DEPTH_MAX:
            raise TooLarge(f"nested deeper than {DEPTH_MAX} levels", line)
        mapping = isinstance(event, yaml.MappingStartEvent)
        value: Fields | Items = Fields(line) if mapping else Items(line)
        # An anchor is known only once its value is whole (see _alias): nothing contains itself.
        self._stack.append(_Open(value, mapping))
        if event.anchor:
            self._anchors[event.anchor] = value

    def _alias(self, event: yaml.AliasEvent, line: int) -> Value:
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            raise TooLarge(f"more than {ALIASES_MAX} aliases in one file", line)
        if self._takes_key():
            raise NotYaml("an alias cannot be a key", line)
        if event.anchor not in self._anchors:
            raise NotYaml(f"alias of an unknown anchor: {event.anchor!r}", line)
        value = self._anchors[event.anchor]
        if any(value is each.value for each in self._stack):
            raise NotYaml(f"anchor {event.anchor!r} contains itself", line)
        return value

    def _place(self, value: Value, line: int) -> YamlDocument | None:
        if not self._stack:
            return YamlDocument(value, line)
        top = self._stack[-1]
        _weigh(top.value, value, line)
        if isinstance(top.value, Items):
            top.value.append(value)
            top.value.lines.append(line)
            return None
        key, top.key = top.key, None
        assert key is not None
        if key == "<<":
            top.merges.append((value, line))
        elif key in top.value:
            raise NotYaml(f"key {key!r} stands there twice", top.key_line)
        else:
            top.value[key] = value
            top.value.lines[key] = top.key_line
        return None

    def _merge(self, closed: _Open) -> None:
        """`<<: *base` brings the base's keys that the mapping does not have itself."""
        target = closed.value
        for value, line in closed.merges:
            for base in value if isinstance(value, Items) else [value]:
                if not isinstance(base, Fields) or not isinstance(target, Fields):
                    raise NotYaml("`<<` needs a mapping", line)
                _weigh(target, base, line)
                for key, item in base.items():
                    target.setdefault(key, item)
                    target.lines.setdefault(key, line)


def _weigh(container: Fields | Items, value: Value, line: int) -> None:
    container.weight += value.weight if isinstance(value, Fields | Items) else 1
    if container.weight > NODES_MAX:
        raise TooLarge(f"more than {NODES_MAX} values once aliases are written out", line)


def _scalar(event: yaml.ScalarEvent, line: int) -> Value:
    if event.tag is None and not event.implicit[0]:  # it was quoted
        quoted: str = event.value
        return quoted
    if event.tag is not None and event.tag not in ("!", *_PLAIN_TAGS):
        raise NotYaml(f"tag {event.tag!r} cannot be used here", line)
    text: str = event.value
    if event.tag is not None and (event.tag == "!" or event.tag.endswith(":str")):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _RADIX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
