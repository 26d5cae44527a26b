"""JSON in which nothing is left to opinion → its document; all else is read with care. Pure.

A policy may not be taken for another one. Two readers of the same text differ in keys that stand
twice, in odd numbers and letters, and in depth: texts with any of these are not read here.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from control.server.sources.yaml_text import DEPTH_MAX, Fields, Items, Value

_NUMBER_CHARS_MAX = 18
_KEY_CHARS_MAX = 256  # YAML has a bound as well
# Escapes, keys that mean something to YAML, a letter that it does not know.
_ODD = ("\\u", '"<<"', "\x7f")


def strict_document(text: str) -> Fields | None:
    """The document, without line numbers. None: not JSON, or not of this kind."""
    if not text.isascii() or any(each in text for each in _ODD):
        return None
    try:
        found = _value(_DECODER.decode(text), 0)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, Fields) else None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _NUMBER_CHARS_MAX:
        raise ValueError("a large number")
    return int(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"an odd number: {text}")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_mapping, parse_float=_refuse, parse_int=_integer, parse_constant=_refuse
)


def _value(value: Any, depth: int) -> Value:
    if value.__class__ is dict:
        fields = Fields(0)
        for name, each in value.items():
            if len(name) > _KEY_CHARS_MAX:
                raise ValueError("a long key")
            fields[name] = each if each.__class__ is str else _value(each, depth + 1)
        return _at_depth(fields, depth)
    if value.__class__ is list:
        items = Items(0)
        items.extend(_value(each, depth + 1) for each in value)
        items.lines = [0] * len(items)
        return _at_depth(items, depth)
    found: Value = value
    return found


def _at_depth(value: Fields | Items, depth: int) -> Fields | Items:
    if depth >= DEPTH_MAX:
        raise ValueError("nested too deep")
    return value
