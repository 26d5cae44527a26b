"""A run as text: ratios first, because absolute figures are the machine's; pure."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.model import METRICS, Figure, Result, System, ratio

_GAP = "  "


def text(result: Result) -> str:
    parts = [
        "Ratios of medians (x of Envoy, x of no mesh):",
        *_grid(_ratio_rows(result)),
        "",
        "Medians (± half the range over the rounds):",
        *_grid(_absolute_rows(result)),
    ]
    thrown = [each for each in result.measurements if not each.kept]
    if thrown:
        worst = max(each.foreign for each in thrown)
        parts += [
            "",
            f"{len(thrown)} measurements thrown away: others used up to {worst:.0%} of"
            " the machine meanwhile",
        ]
    if result.notes:
        parts += ["", *(f"note: {note}" for note in result.notes)]
    about = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    return "\n".join([*parts, "", f"{result.started_at}  {about}"])


def _ratio_rows(result: Result) -> list[list[str]]:
    systems = result.systems()
    columns = [
        (one, other)
        for other in (System.ENVOY.value, System.NONE.value)
        for one in systems
        if other in systems and one != other
    ]
    rows = [["", *(f"{one}/{other}" for one, other in columns)]]
    for topology, case, metric in result.rows():
        cells = []
        for one, other in columns:
            value = ratio(
                result.figure(topology, case, one, metric),
                result.figure(topology, case, other, metric),
            )
            cells.append("" if value is None else f"{value:.2f}")
        if any(cells):
            rows.append([_name(topology, case, metric), *cells])
    return rows


def _absolute_rows(result: Result) -> list[list[str]]:
    systems = result.systems()
    rows = [["", *systems]]
    for topology, case, metric in result.rows():
        figures = [result.figure(topology, case, system, metric) for system in systems]
        if any(figures):
            rows.append([_name(topology, case, metric), *(_cell(metric, one) for one in figures)])
    return rows


def _cell(metric: str, found: Figure | None) -> str:
    if found is None:
        return ""
    how = METRICS[metric]
    spread = f" ±{found.spread:.0%}" if found.count > 1 else ""
    return f"{found.median:,.{how.digits}f} {how.unit}{spread}"


def _name(topology: str, case: str, metric: str) -> str:
    return f"{topology}  {case:9} {METRICS[metric].label}"


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        _GAP.join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]
