"""Rows to text: tables, JSON, YAML, names. Pure, except for `show`, which prints."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import click

from control.kit.terminal import is_interactive, reader_gone

FORMATS = ("table", "wide", "json", "yaml", "name")
WATCH_INTERVAL_S = 2.0
_GAP = "   "  # between columns
_PIECE = re.compile(r"[^ ,/]*[ ,/]+|[^ ,/]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """`form`: the value in a table, with its unit; JSON has the bare number."""

    title: str
    key: str
    wide: bool = False
    form: str = ""

    def cell(self, row: Row) -> str:
        value = row.get(self.key)
        return self.form.format(value) if self.form and value is not None else cell(value)


@dataclass(frozen=True, slots=True)
class Output:
    """`width`: of a terminal; 0: the lines of a table are as long as they are."""

    format: str = "table"
    headers: bool = True
    watch: bool = False
    width: int = 0


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """-o, --no-headers and --watch, given to the command as `out`."""

    @click.option(
        "-o",
        "--output",
        "output_format",
        type=click.Choice(FORMATS),
        default="table",
        help="Output format.",
    )
    @click.option("--no-headers", is_flag=True, help="Leave out the column titles.")
    @click.option("--watch", is_flag=True, help=f"Print again every {WATCH_INTERVAL_S:.0f} s.")
    @functools.wraps(command)
    def wrapped(
        *args: Any, output_format: str, no_headers: bool, watch: bool, **kwargs: Any
    ) -> Any:
        width = shutil.get_terminal_size().columns if is_interactive(sys.stdout) else 0
        return command(*args, out=Output(output_format, not no_headers, watch, width), **kwargs)

    return wrapped


def table(rows: Sequence[Row], columns: Sequence[Column], out: Output) -> str:
    """A table with columns as wide as their widest cell, as far as there is room; no line ends in
    spaces."""
    chosen = [column for column in columns if out.format == "wide" or not column.wide]
    lines = [[column.title for column in chosen]] if out.headers else []
    lines += [[column.cell(row) for column in chosen] for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[index]) for line in lines) for index in range(len(chosen))]
    if out.format != "wide":
        widths = _fitted(lines, widths, out.width)
    return "".join(
        _GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for whole in lines
        for line in _wrapped(whole, widths)
    )


def _fitted(lines: Sequence[list[str]], widths: list[int], width: int) -> list[int]:
    """Widths for a terminal: the widest columns give way, down to what their cells can be broken
    into. One that is too narrow for that is left to itself."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    columns = zip(*lines, strict=True)
    least = [
        max(len(each.rstrip()) for text in column for each in _pieces(text)) for column in columns
    ]
    if not width or excess > sum(widths) - sum(least):
        return widths
    found = list(widths)
    for _ in range(excess):
        wide = (at for at in range(len(found)) if found[at] > least[at])
        found[max(wide, key=lambda at: found[at])] -= 1
    return found


def _wrapped(line: list[str], widths: list[int]) -> list[tuple[str, ...]]:
    """The line as several, for the cells that are wider than their column."""
    cells = [_broken(text, width) for text, width in zip(line, widths, strict=True)]
    return list(zip_longest(*cells, fillvalue=""))


def _broken(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    found = [""]
    for piece in _pieces(text):
        if found[-1] and len(found[-1]) + len(piece.rstrip()) > width:
            found.append("")
        found[-1] += piece
    return [each.rstrip() for each in found]


def _pieces(text: str) -> list[str]:
    """Parts between which a cell may be broken: words, items of a list, steps of a path."""
    return _PIECE.findall(text) or [""]


def cell(value: Any) -> str:
    """One value as text. Control characters, which a peer may have chosen, are replaced."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return _CONTROL.sub("?", text)


def render(rows: Any, columns: Sequence[Column], out: Output) -> str:
    """`rows` is a list of rows; for JSON and YAML it may be any value."""
    if out.format == "json":
        return json.dumps(rows, indent=2) + "\n"
    if out.format == "yaml":
        import yaml  # 20 ms that no other format needs

        return str(yaml.safe_dump(rows, sort_keys=False))
    if out.format == "name":
        return "".join(f"{_name(row)}\n" for row in rows)
    return table(rows, columns, out)


def _name(row: Row) -> str:
    namespace, name = row.get("namespace"), cell(row.get("name"))
    return f"{cell(namespace)}/{name}" if namespace else name


def show(
    out: Output,
    fetch: Callable[[], Any],
    columns: Sequence[Column],
    empty: str | Callable[[], str] = "nothing found",
    as_text: Callable[[Any], str] | None = None,
) -> None:
    """Fetch and print, once or, with --watch, until interrupted. An empty result is no error;
    `empty` are the words for it."""
    while True:
        rows = fetch()
        if out.watch and is_interactive(sys.stdout):
            click.clear()
        if not rows:
            click.echo(empty if isinstance(empty, str) else empty(), err=True)
        if rows or out.format in ("json", "yaml"):
            click.echo(as_text(rows) if as_text else render(rows, columns, out), nl=False)
        if not out.watch or reader_gone():
            return
        time.sleep(WATCH_INTERVAL_S)


def colour_wanted() -> bool:
    return is_interactive(sys.stdout) and "NO_COLOR" not in os.environ
