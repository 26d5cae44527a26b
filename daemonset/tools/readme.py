"""The chart's README: its table of settings is made from the schema and the defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "chart"
FILE = CHART / "README.md"
START, END = "<!-- settings: made by `make manifests` -->", "<!-- end of settings -->"


def rows(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> Iterator[str]:
    """A table row for each setting, in the schema's order."""
    for name, part in schema["properties"].items():
        if path == "" and name == "global":
            continue  # Helm's own
        place = f"{path}{name}"
        if "properties" in part:
            yield from rows(part, values[name], f"{place}.")
            continue
        default = json.dumps(values[name], ensure_ascii=False)
        allowed = ", ".join(f"`{each}`" for each in part.get("enum", ()) if each)
        text = part["description"] + (f" One of {allowed}." if allowed else "")
        yield f"| `{place}` | `{default}` | {text} |"


def table() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return "\n".join(["| Setting | Default | |", "|---|---|---|", *rows(schema, values)])


def files() -> dict[Path, str]:
    before, _, rest = FILE.read_text().partition(START)
    _, _, after = rest.partition(END)
    return {FILE: f"{before}{START}\n{table()}\n{END}{after}"}
