"""`--set` as Helm has it: a.b=1,c={x,y},d[0].e=z,f=null. Text to nested values; pure."""

from __future__ import annotations

import re
from typing import Any

from control.kit.errors import ConfigError

INDEX_MAX = 1000
_STEP = re.compile(r"((?:[^.\[\]\\]|\\.)+)((?:\[\d+\])*)(?:\.|$)")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
Step = str | int


def assignments(text: str) -> list[tuple[tuple[Step, ...], Any]]:
    """(path, value) of each assignment. A backslash takes a comma or dot as it is. ConfigError."""
    found = []
    for part in _split(text):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--set {part!r}: write NAME=VALUE")
        found.append((steps(name.strip()), _value(value)))
    return found


def steps(name: str) -> tuple[Step, ...]:
    found: list[Step] = []
    at = 0
    while at < len(name):
        match = _STEP.match(name, at)
        if match is None:
            break
        found.append(re.sub(r"\\(.)", r"\1", match[1]))
        found += [int(each) for each in re.findall(r"\d+", match[2])]
        at = match.end()
    if not found or at < len(name) or name.endswith("."):
        raise ConfigError(f"--set {name!r}: no name of a setting")
    if any(isinstance(each, int) and each > INDEX_MAX for each in found):
        raise ConfigError(f"--set {name!r}: an index over {INDEX_MAX}")
    return tuple(found)


def assign(into: dict[str, Any], path: tuple[Step, ...], value: Any) -> None:
    """Set one place of nested values; ConfigError where something else is in the way."""
    at: Any = into
    for step, after in zip(path, (*path[1:], None), strict=True):
        if isinstance(step, int):
            if not isinstance(at, list) or step > len(at):
                raise ConfigError(f"--set {name_of(path)}: no place [{step}] there")
            at += [None] if step == len(at) else []
        elif not isinstance(at, dict):
            raise ConfigError(f"--set {name_of(path)}: {step!r} is below a single value")
        if after is None:
            at[step] = value
            return
        there = at.get(step) if isinstance(at, dict) else at[step]
        if there is None:
            there = at[step] = [] if isinstance(after, int) else {}
        at = there


def name_of(path: tuple[Step, ...]) -> str:
    return "".join(
        f"[{each}]" if isinstance(each, int) else f".{each}" if number else each
        for number, each in enumerate(path)
    )


def _split(text: str) -> list[str]:
    """Assignments, at commas that stand neither in braces nor behind a backslash."""
    parts, depth, at = [""], 0, 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            parts[-1] += text[at : at + 2]
            at += 2
            continue
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += char
        at += 1
    return [each for each in parts if each.strip()]


def _value(text: str) -> Any:
    if text.startswith("{") and text.endswith("}"):
        return [_value(each) for each in _split(text[1:-1])]
    plain = re.sub(r"\\(.)", r"\1", text)
    named = {"true": True, "false": False, "null": None}
    if plain in named:
        return named[plain]
    return int(plain) if _INTEGER.fullmatch(plain) else plain
