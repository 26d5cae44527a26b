"""Functions of the templates, as Helm and its library have them. Pure.

Only those that the chart uses; the meaning is Helm's, including what it takes for empty.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import yaml

# The same in C, where PyYAML was built with it: ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Function = Callable[..., Any]
_WIDE = 2**30  # no line is folded


def is_empty(value: Any) -> bool:
    """As templates take it: nothing, false, zero, or without content."""
    return value is None or value is False or value in (0, "", [], {})


def to_yaml(value: Any) -> str:
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=False, width=_WIDE, allow_unicode=True
    )
    return str(text).removesuffix("\n...\n").removesuffix("\n")


def documents(text: str) -> list[Any]:
    """The documents of a text, without empty ones. Raises ValueError."""
    try:
        return [each for each in yaml.load_all(text, Loader=_Loader) if each is not None]
    except (yaml.YAMLError, RecursionError) as exc:
        raise ValueError(f"no YAML: {' '.join(str(exc).split())}") from exc


def from_yaml(text: str) -> Any:
    found = documents(text)
    return found[0] if found else {}


def merge(into: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """The first, and what is empty in it from the others."""
    for other in others:
        for key, value in other.items():
            own = into.get(key)
            if isinstance(own, dict) and isinstance(value, dict) and own:
                merge(own, value)
            elif is_empty(own):
                into[key] = deepcopy(value)
    return into


def indent(spaces: int, text: str) -> str:
    return "\n".join(" " * spaces + line for line in text.split("\n"))


def shown(value: Any) -> str:
    """A value as it is printed."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def printf(form: str, *values: Any) -> str:
    for value in values:
        form = form.replace("%s", shown(value), 1).replace("%d", shown(value), 1)
    return form


def index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else value[key]
    return value


def dig(*words: Any) -> Any:
    *keys, default, value = words
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return value


def both(*values: Any) -> Any:
    """The first empty value, else the last."""
    return next((each for each in values if is_empty(each)), values[-1])


def either(*values: Any) -> Any:
    """The first value that is not empty, else the last."""
    return next((each for each in values if not is_empty(each)), values[-1])


def as_dict(*words: Any) -> dict[str, Any]:
    return dict(zip(words[::2], words[1::2], strict=True))


FUNCTIONS: dict[str, Function] = {
    "and": both,
    "base": posixpath.basename,
    "deepCopy": deepcopy,
    "default": lambda default, value=None: default if is_empty(value) else value,
    "dict": as_dict,
    "dig": dig,
    "dir": posixpath.dirname,
    "eq": lambda value, *others: any(value == other for other in others),
    "fromYaml": from_yaml,
    "gt": lambda one, other: one > other,
    "has": lambda value, values: value in (values or []),
    "hasKey": lambda values, key: key in values,
    "indent": indent,
    "index": index,
    "int": lambda value: int(value or 0),
    "join": lambda sign, values: sign.join(map(shown, values)),
    "last": lambda values: values[-1] if values else None,
    "len": len,
    "list": lambda *values: list(values),
    "lower": str.lower,
    "lt": lambda one, other: one < other,
    "merge": merge,
    "ne": lambda one, other: one != other,
    "nindent": lambda spaces, text: "\n" + indent(spaces, text),
    "not": is_empty,
    "or": either,
    "printf": printf,
    "quote": lambda value: json.dumps(shown(value), ensure_ascii=False),
    "replace": lambda old, new, text: text.replace(old, new),
    "splitList": lambda sign, text: text.split(sign),
    "ternary": lambda yes, no, value: yes if value else no,
    "toString": shown,
    "toYaml": to_yaml,
    "trimPrefix": lambda prefix, text: text.removeprefix(prefix),
    "trimSuffix": lambda suffix, text: text.removesuffix(suffix),
}
