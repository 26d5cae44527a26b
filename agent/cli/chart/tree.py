"""A template as a tree: nodes that are executed, and expressions that have a value. Pure.

The part of Go's templates that the chart is written in: if, with, range, define, variables,
pipelines and parentheses. Anything else is refused by name, never passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.cli.chart.errors import ChartError
from agent.cli.chart.lexer import Copied, TemplateAction, TemplateWord, pieces

DEPTH_MAX = 40


@dataclass(frozen=True, slots=True)
class Literal:
    value: str | int | bool | None


@dataclass(frozen=True, slots=True)
class Path:
    """Fields of the dot (`root` empty), of a variable, or of an expression."""

    root: str | Call
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """Words beside each other: a function or a method and its arguments; pipes are made calls."""

    head: str | Term
    arguments: tuple[Term, ...] = ()


Term = Literal | Path | Call


@dataclass(frozen=True, slots=True)
class Print:
    value: Term
    line: int


@dataclass(frozen=True, slots=True)
class Assign:
    name: str
    value: Term
    line: int


@dataclass(slots=True)
class TemplateBlock:
    """if, with or range. `names`: variables that it sets."""

    word: str
    value: Term
    line: int
    names: tuple[str, ...] = ()
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


Node = Copied | Print | Assign | TemplateBlock


@dataclass(slots=True)
class Template:
    where: str
    nodes: list[Node]
    defined: dict[str, list[Node]]


def parse(text: str, where: str) -> Template:
    """The template of one file. Raises ChartError with file and line."""
    return _Parser(pieces(text, where), where).template()


class _Parser:
    def __init__(self, found: list[Copied | TemplateAction], where: str) -> None:
        self._pieces = found
        self._where = where
        self._at = 0
        self._defined: dict[str, list[Node]] = {}

    def template(self) -> Template:
        nodes, ended = self._nodes(0)
        if ended is not None:
            raise ChartError(f"{self._where}:{ended.line}: {ended.words[0].text} without a block")
        return Template(self._where, nodes, self._defined)

    def _nodes(self, depth: int) -> tuple[list[Node], TemplateAction | None]:
        """Nodes up to the `end` or `else` that is not theirs, which is given, too."""
        if depth > DEPTH_MAX:
            raise ChartError(f"{self._where}: blocks nested over {DEPTH_MAX} deep")
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, Copied):
                nodes.append(piece)
                continue
            first = piece.words[0].text if piece.words[0].kind == "name" else ""
            if first in ("end", "else"):
                return nodes, piece
            if first == "define":
                self._defined[piece.words[1].text] = self._body(piece, depth)
            elif first in ("if", "with", "range"):
                nodes.append(self._block(piece, piece.words, depth))
            else:
                nodes.append(self._simple(piece))
        return nodes, None

    def _body(self, opened: TemplateAction, depth: int) -> list[Node]:
        nodes, ended = self._nodes(depth + 1)
        if ended is None or ended.words[0].text != "end":
            raise ChartError(f"{self._where}:{opened.line}: a block without an end")
        return nodes

    def _block(
        self, opened: TemplateAction, words: tuple[TemplateWord, ...], depth: int
    ) -> TemplateBlock:
        word, rest = words[0].text, words[1:]
        names: tuple[str, ...] = ()
        signs = [each.text for each in rest if each.kind == "sign"]
        if ":=" in signs:
            split = next(n for n, each in enumerate(rest) if each.text == ":=")
            names = tuple(each.text for each in rest[:split] if each.kind == "variable")
            rest = rest[split + 1 :]
        block = TemplateBlock(word, self._term(rest, opened.line), opened.line, names)
        block.body, ended = self._nodes(depth + 1)
        if ended is not None and ended.words[0].text == "else":
            if len(ended.words) > 1:
                block.otherwise = [self._block(ended, ended.words[1:], depth + 1)]
                return block
            block.otherwise, ended = self._nodes(depth + 1)
        if ended is None or ended.words[0].text != "end":
            raise ChartError(f"{self._where}:{opened.line}: {word} without an end")
        return block

    def _simple(self, piece: TemplateAction) -> Node:
        words = piece.words
        if len(words) > 2 and words[0].kind == "variable" and words[1].text in (":=", "="):
            return Assign(words[0].text, self._term(words[2:], piece.line), piece.line)
        return Print(self._term(words, piece.line), piece.line)

    def _term(self, words: tuple[TemplateWord, ...], line: int) -> Term:
        return _Expression(words, f"{self._where}:{line}").whole()


class _Expression:
    def __init__(self, words: tuple[TemplateWord, ...], where: str) -> None:
        self._words = words
        self._where = where
        self._at = 0

    def whole(self) -> Term:
        found = self._pipeline(0)
        if self._at < len(self._words):
            raise ChartError(f"{self._where}: {self._words[self._at].text!r} was not expected")
        return found

    def _next(self) -> TemplateWord | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def _pipeline(self, depth: int) -> Term:
        if depth > DEPTH_MAX:
            raise ChartError(f"{self._where}: parentheses nested over {DEPTH_MAX} deep")
        found = self._command(depth)
        while (word := self._next()) is not None and (word.kind, word.text) == ("sign", "|"):
            self._at += 1
            after = self._command(depth)
            if not isinstance(after, Call):
                raise ChartError(f"{self._where}: a pipe needs a function behind it")
            found = Call(after.head, (*after.arguments, found))
        return found

    def _command(self, depth: int) -> Term:
        terms: list[Term] = []
        while (word := self._next()) is not None and not (
            word.kind == "sign" and word.text in ("|", ")")
        ):
            terms.append(self._operand(depth))
        if not terms:
            raise ChartError(f"{self._where}: a value is missing")
        head, *arguments = terms
        if isinstance(head, Call) and isinstance(head.head, str) and not head.arguments:
            return Call(head.head, tuple(arguments))
        return Call(head, tuple(arguments)) if arguments else head

    def _operand(self, depth: int) -> Term:
        word = self._words[self._at]
        self._at += 1
        match word.kind:
            case "text":
                return Literal(word.text)
            case "number":
                return Literal(int(word.text))
            case "name":
                named = {"true": True, "false": False, "nil": None}
                return Literal(named[word.text]) if word.text in named else Call(word.text)
            case "variable":
                return Path(word.text, self._fields())
            case "field":
                return Path("", (word.text[1:], *self._fields()))
            case "sign" if word.text == ".":
                return Path("")
            case "sign" if word.text == "(":
                inside = self._pipeline(depth + 1)
                if (closing := self._next()) is None or closing.text != ")":
                    raise ChartError(f"{self._where}: a parenthesis without an end")
                self._at += 1
                fields = self._fields()
                wrapped = inside if isinstance(inside, Call) else Call(inside)
                return Path(wrapped, fields) if fields else Path(wrapped)
        raise ChartError(f"{self._where}: {word.text!r} was not expected")

    def _fields(self) -> tuple[str, ...]:
        """Fields that stand directly behind a term."""
        found = []
        while (word := self._next()) is not None and word.kind == "field" and word.glued:
            found.append(word.text[1:])
            self._at += 1
        return tuple(found)
