"""Execution of template trees: text out of values. Pure; bounded in depth and size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.cli.chart.errors import ChartError
from agent.cli.chart.functions import FUNCTIONS, Function, is_empty, shown
from agent.cli.chart.lexer import Copied
from agent.cli.chart.tree import (
    Assign,
    Call,
    Literal,
    Node,
    Path,
    Print,
    Template,
    TemplateBlock,
    Term,
)

INCLUDE_DEPTH_MAX = 20
TEXT_CHARS_MAX = 4 * 1024 * 1024


class Runner:
    """All templates of a chart; `functions` are those that need the chart or the cluster."""

    def __init__(self, templates: list[Template], functions: Mapping[str, Function]) -> None:
        self._defined = {
            name: (each.where, nodes) for each in templates for name, nodes in each.defined.items()
        }
        self._functions = {**FUNCTIONS, **functions, "include": self._include}
        self._depth = 0

    def render(self, template: Template, dot: Any) -> str:
        """The text of a template. Raises ChartError."""
        return self._run(template.nodes, _Scope(template.where, dot))

    def _include(self, name: str, dot: Any) -> str:
        if name not in self._defined:
            raise ChartError(f"no template {name!r} is defined")
        if self._depth >= INCLUDE_DEPTH_MAX:
            raise ChartError(f"{name}: templates include each other over {INCLUDE_DEPTH_MAX} deep")
        where, nodes = self._defined[name]
        self._depth += 1
        try:
            return self._run(nodes, _Scope(where, dot))
        finally:
            self._depth -= 1

    def _run(self, nodes: list[Node], scope: _Scope) -> str:
        parts: list[str] = []
        size = 0
        for node in nodes:
            parts.append(self._text(node, scope))
            size += len(parts[-1])
            if size > TEXT_CHARS_MAX:
                raise ChartError(f"{scope.where}: over {TEXT_CHARS_MAX} characters")
        return "".join(parts)

    def _text(self, node: Node, scope: _Scope) -> str:
        if isinstance(node, Copied):
            return node.text
        try:
            match node:
                case Print():
                    return shown(self._value(node.value, scope))
                case Assign():
                    scope.names[node.name] = self._value(node.value, scope)
                    return ""
                case TemplateBlock():
                    return self._block(node, scope)
        except ChartError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError) as exc:
            raise ChartError(f"{scope.where}:{node.line}: {exc}") from exc

    def _block(self, node: TemplateBlock, scope: _Scope) -> str:
        value = self._value(node.value, scope)
        if is_empty(value):
            return self._run(node.otherwise, scope.inner(scope.dot))
        if node.word == "range":
            pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
            parts = []
            for key, each in sorted(pairs) if isinstance(value, dict) else pairs:
                inner = scope.inner(each)
                names = node.names if len(node.names) != 1 else ("", *node.names)
                inner.names.update(zip(names, (key, each), strict=False))
                parts.append(self._run(node.body, inner))
            return "".join(parts)
        inner = scope.inner(value if node.word == "with" else scope.dot)
        inner.names.update(dict.fromkeys(node.names, value))
        return self._run(node.body, inner)

    def _value(self, term: Term, scope: _Scope) -> Any:
        match term:
            case Literal(value):
                return value
            case Path(root, fields):
                return self._path(root, fields, scope)
            case Call(head, arguments):
                values = [self._value(each, scope) for each in arguments]
                if not isinstance(head, str):
                    found = self._value(head, scope)
                    return found(*values) if callable(found) else found
                function = self._functions.get(head)
                if function is None:
                    raise ChartError(f"{scope.where}: no function {head!r} here")
                return function(*values)

    def _path(self, root: str | Call, fields: tuple[str, ...], scope: _Scope) -> Any:
        if isinstance(root, Call):
            value = self._value(root, scope)
        elif root == "":
            value = scope.dot
        else:
            value = scope.names[root]
        for name in fields:
            if not isinstance(value, Mapping):
                raise ChartError(f"{scope.where}: no field {name!r} in {type(value).__name__}")
            value = value.get(name)
        return value


class _Scope:
    """The dot and the variables; `$` is the dot that a template began with."""

    def __init__(self, where: str, dot: Any, names: dict[str, Any] | None = None) -> None:
        self.where = where
        self.dot = dot
        self.names = {"$": dot} if names is None else names

    def inner(self, dot: Any) -> _Scope:
        return _Scope(self.where, dot, dict(self.names))
