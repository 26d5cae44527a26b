"""A run on disk: JSON there and back, and where the newest one is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from control.kit.files import write_atomic
from tests.bench.model import BenchError, Measurement, Result

FOLDER = Path(__file__).parents[2] / "build" / "bench"
VERSION = 1


def encode(result: Result) -> str:
    return json.dumps({"version": VERSION, **asdict(result)}, indent=1)


def decode(text: str, where: str) -> Result:
    try:
        value: dict[str, Any] = json.loads(text)
        if value.pop("version") != VERSION:
            raise BenchError(f"{where} is of another version of this benchmark")
        measurements = tuple(Measurement(**each) for each in value.pop("measurements"))
        notes = tuple(value.pop("notes"))
        return Result(**value, measurements=measurements, notes=notes)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BenchError(f"{where} is not a result of this benchmark: {exc}") from exc


def save(result: Result, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encode(result).encode(), 0o644)


def load(path: Path) -> Result:
    try:
        return decode(path.read_text(), str(path))
    except OSError as exc:
        raise BenchError(f"{path}: {exc.strerror}") from exc


def path_of(started_at: str) -> Path:
    """Names sort by time."""
    return FOLDER / f"{started_at.partition('+')[0].replace(':', '')}.json"


def newest() -> Path | None:
    found = sorted(FOLDER.glob("*.json"))
    return found[-1] if found else None


def merge(results: list[Result]) -> Result:
    """Runs of one machine, taken in pieces, as one. Ratios are only fair within a case."""
    if not results:
        raise BenchError("nothing to merge")
    first = results[0]
    machine = dict(first.machine)
    for each in results:  # a run without a lab does not know all of it
        machine |= each.machine
    if any({**machine, **each.machine} != machine for each in results):
        raise BenchError("results of different machines cannot be merged")
    return Result(
        started_at=first.started_at,
        machine=machine,
        options={"merged": [each.started_at for each in results]},
        measurements=tuple(one for each in results for one in each.measurements),
        notes=tuple(note for each in results for note in each.notes),
    )
