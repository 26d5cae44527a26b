"""A template's text as pieces: what is copied, and the words of each `{{ action }}`. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from agent.cli.chart.errors import ChartError

_ACTION = re.compile(
    r"\{\{(?P<left>- )?[ \t\n]*"
    r"(?:/\*(?P<note>.*?)\*/|(?P<code>(?:\"(?:[^\"\\]|\\.)*\"|`[^`]*`|.)*?))"
    r"[ \t\n]*(?P<right> ?-)?\}\}",
    re.DOTALL,
)
_WORD = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*")
  | (?P<raw>`[^`]*`)
  | (?P<number>-?\d+(?![\w.]))
  | (?P<variable>\$\w*)
  | (?P<field>\.\w+)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<sign>:=|[|(),=.])
)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Copied:
    text: str


@dataclass(frozen=True, slots=True)
class TemplateWord:
    """`kind`: text, number, variable, field, name or sign. `glued`: no space before it."""

    kind: str
    text: str
    glued: bool = False


@dataclass(frozen=True, slots=True)
class TemplateAction:
    words: tuple[TemplateWord, ...]
    line: int


def pieces(text: str, where: str) -> list[Copied | TemplateAction]:
    """The pieces in order; `-` at a brace has taken the white space beside it. ChartError."""
    found: list[Copied | TemplateAction] = []
    start, trims = 0, False
    for match in _ACTION.finditer(text):
        before = text[start : match.start()]
        before = before.lstrip() if trims else before
        before = before.rstrip() if match["left"] else before
        if before:
            found.append(Copied(before))
        if match["code"]:
            line = text.count("\n", 0, match.start()) + 1
            found.append(TemplateAction(words(match["code"], f"{where}:{line}"), line))
        start, trims = match.end(), bool(match["right"])
    rest = text[start:].lstrip() if trims else text[start:]
    if "{{" in rest:
        raise ChartError(f"{where}: an action without an end")
    return [*found, Copied(rest)] if rest else found


def words(code: str, where: str) -> tuple[TemplateWord, ...]:
    found, at, code = [], 0, code.rstrip()
    while at < len(code):
        match = _WORD.match(code, at)
        if match is None or match.lastgroup is None:
            raise ChartError(f"{where}: not understood: {code[at:]!r}")
        kind, text = match.lastgroup, match[match.lastgroup]
        glued = match.start(match.lastgroup) == at and at > 0
        if kind in ("text", "raw"):
            text, kind = json.loads(text) if kind == "text" else text[1:-1], "text"
        found.append(TemplateWord(kind, text, glued))
        at = match.end()
    return tuple(found)
