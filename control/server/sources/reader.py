"""Typed look-ups, with line numbers, in a mapping from outside. Refuses, never guesses."""

from __future__ import annotations

from collections.abc import Mapping

from control.server.sources.problem import Invalid, UnknownField
from control.server.sources.sharing import shared_labels
from control.server.sources.yaml_text import Fields, Items, Value


class Reader:
    """One mapping and the path to it. A null reads as an absent field, as in Kubernetes.

    The path is put together when somebody asks for it: most mappings are in order."""

    __slots__ = ("_above", "_index", "_name", "fields")

    def __init__(
        self, fields: Fields, name: str = "", above: Reader | None = None, index: int | None = None
    ) -> None:
        """`name` and `index` are the place in what is above."""
        self.fields = fields
        self._name = name
        self._above = above
        self._index = index

    @property
    def path(self) -> str:
        path = self._name if self._above is None else self._above.where(self._name)
        return path if self._index is None else f"{path}[{self._index}]"

    def __contains__(self, key: str) -> bool:
        return self.fields.get(key) is not None

    def line(self, key: str | None = None) -> int:
        if key is None:
            return self.fields.line
        return self.fields.lines.get(key, self.fields.line)

    def where(self, key: str) -> str:
        path = self.path
        return f"{path}.{key}" if path else key

    def invalid(self, key: str, message: str) -> Invalid:
        return Invalid(f"{self.where(key)}: {message}", self.line(key))

    def only(self, *allowed: str) -> None:
        """Every key must be one of these."""
        for key in self.fields:
            if key not in allowed:
                raise UnknownField(f"unknown field {self.where(key)}", self.line(key))

    def _get(self, key: str, kind: type, noun: str) -> Value:
        value = self.fields.get(key)
        if value is None or value.__class__ is kind:
            return value
        if isinstance(value, kind) and not isinstance(value, bool):  # True is no int to YAML
            return value
        raise self.invalid(key, f"must be {noun}, not {_noun(value)}")

    def text(self, key: str, default: str = "") -> str:
        value = self.fields.get(key)
        if isinstance(value, str):  # nearly always; a start asks a million times
            return value
        self._get(key, str, "a string")
        return default

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._get(key, bool, "true or false")
        return value if isinstance(value, bool) else default

    def number(self, key: str) -> int | None:
        value = self._get(key, int, "a whole number")
        return value if isinstance(value, int) else None

    def port(self, key: str) -> int | None:
        value = self.number(key)
        if value is not None and not 0 < value < 65536:
            raise self.invalid(key, f"port {value} is out of range")
        return value

    def child(self, key: str) -> Reader | None:
        value = self._get(key, Fields, "a mapping")
        return Reader(value, key, self) if isinstance(value, Fields) else None

    def part(self, key: str) -> Reader:
        """As `child`; an absent one reads as empty."""
        return self.child(key) or Reader(Fields(self.line(key)), key, self)

    def children(self, key: str) -> list[Reader]:
        found = []
        for index, (item, line) in enumerate(self._items(key)):
            if not isinstance(item, Fields):
                where = f"{self.where(key)}[{index}]"
                raise Invalid(f"{where}: must be a mapping, not {_noun(item)}", line)
            found.append(Reader(item, key, self, index))
        return found

    def texts(self, key: str) -> list[tuple[str, int]]:
        """The strings of a list, each with its line."""
        found = []
        for index, (item, line) in enumerate(self._items(key)):
            if not isinstance(item, str):
                where = f"{self.where(key)}[{index}]"
                raise Invalid(f"{where}: must be a string, not {_noun(item)}", line)
            found.append((item, line))
        return found

    def numbers(self, key: str) -> list[int]:
        """The whole numbers of a list."""
        found = []
        for index, (item, line) in enumerate(self._items(key)):
            if not isinstance(item, int) or isinstance(item, bool):
                where = f"{self.where(key)}[{index}]"
                raise Invalid(f"{where}: must be a whole number, not {_noun(item)}", line)
            found.append(item)
        return found

    def _items(self, key: str) -> list[tuple[Value, int]]:
        value = self._get(key, Items, "a list")
        return list(zip(value, value.lines, strict=True)) if isinstance(value, Items) else []

    def labels(self, key: str) -> Mapping[str, str]:
        """A mapping of strings to strings."""
        part = self.part(key)
        return shared_labels((name, part.text(name)) for name in part.fields)


def _noun(value: object) -> str:
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a string"
        case Fields():
            return "a mapping"
        case Items():
            return "a list"
        case _:
            return "null"
