"""The chart's schema of its settings: the part of JSON schema that it is written in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

Schema = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def problems(value: Any, schema: Schema, place: str = "") -> Iterator[str]:
    """All that is wrong with a value, each with its place."""
    wanted = schema.get("type")
    if wanted and not _is(value, wanted):
        yield f"{place or 'the settings'}: {value!r} is no {wanted}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is not one of {', '.join(map(repr, schema['enum']))}"
    if isinstance(value, str):
        yield from _text(value, schema, place)
    elif isinstance(value, dict):
        yield from _fields(value, schema, place)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from problems(each, schema.get("items", {}), f"{place}[{number}]")
    elif not isinstance(value, bool) and isinstance(value, int | float):
        yield from _number(value, schema, place)


def _is(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    return isinstance(value, _TYPES[wanted])


def _text(value: str, schema: Schema, place: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"{place}: must not be empty"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{place}: {value!r} is not of the form {schema['pattern']}"


def _number(value: float, schema: Schema, place: str) -> Iterator[str]:
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    if not low <= value <= high:
        yield f"{place}: {value} is not from {low} to {high}"


def _fields(value: Schema, schema: Schema, place: str) -> Iterator[str]:
    known: Schema = schema.get("properties", {})
    for name, each in value.items():
        where = f"{place}.{name}" if place else str(name)
        if name in known:
            yield from problems(each, known[name], where)
        elif schema.get("additionalProperties") is False:
            near = get_close_matches(str(name), known, 1)
            there = f"{place}.{near[0]}" if near and place else "".join(near)
            yield f"no setting {where}" + (f"; did you mean {there}?" if near else "")


def part(schema: Schema, path: tuple[str | int, ...]) -> Schema:
    """The schema of one place; empty where it says nothing."""
    for step in path:
        inner = schema.get("items") if isinstance(step, int) else None
        if isinstance(step, str):
            inner = schema.get("properties", {}).get(step)
        schema = inner if isinstance(inner, dict) else {}
    return schema
