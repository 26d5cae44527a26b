"""Figures against the size of the mesh, both axes logarithmic, a panel each. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from tests.bench.scale.outcome import GOALS, NAMES, ScaleFigure, exponent, shown

PANELS = ("change_cpu_ms", "ready_s", "rss_mib", "probe_ms")
WIDTH, HEIGHT, MARGIN = 320, 220, 46
LINE, GOAL, INK = "#0f766e", "#b45309", "#1f2937"


def svg(figures: Sequence[ScaleFigure]) -> str:
    panels = [name for name in PANELS if any(each.name == name for each in figures)]
    body = "".join(
        f"<g transform='translate({WIDTH * at},0)'>{_panel(name, figures)}</g>"
        for at, name in enumerate(panels)
    )
    width = WIDTH * max(1, len(panels))
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{HEIGHT}'"
        f" font-family='sans-serif' font-size='11' fill='{INK}'>"
        f"<rect width='100%' height='100%' fill='white'/>{body}</svg>\n"
    )


def _panel(name: str, figures: Iterable[ScaleFigure]) -> str:
    found = sorted((each.pods, max(each.value, 0.01)) for each in figures if each.name == name)
    goal = next((each.limit for each in GOALS if each.name == name), None)
    values = [value for _, value in found] + ([goal] if goal else [])
    across = _scale([pods for pods, _ in found], MARGIN, WIDTH - 14)
    up = _scale(values, HEIGHT - 30, 34)
    grown = exponent(figures, name) if isinstance(figures, Sequence) else None
    words, unit = NAMES[name]
    title = f"{words.strip()}, {unit}" + ("" if grown is None else f" (exponent {grown:.2f})")
    parts = [f"<text x='{MARGIN}' y='18'>{escape(title)}</text>"]
    if goal:
        y = up(goal)
        parts.append(
            f"<line x1='{MARGIN}' x2='{WIDTH - 14}' y1='{y:.0f}' y2='{y:.0f}' stroke='{GOAL}'"
            f" stroke-dasharray='4'/><text x='4' y='{y + 4:.0f}' fill='{GOAL}'>{shown(goal)}</text>"
        )
    points = " ".join(f"{across(pods):.0f},{up(value):.0f}" for pods, value in found)
    parts.append(f"<polyline points='{points}' fill='none' stroke='{LINE}' stroke-width='2'/>")
    for pods, value in found:
        x, y = across(pods), up(value)
        parts.append(
            f"<circle cx='{x:.0f}' cy='{y:.0f}' r='3' fill='{LINE}'/>"
            f"<text x='{x - 8:.0f}' y='{y - 7:.0f}'>{shown(value)}</text>"
            f"<text x='{x - 16:.0f}' y='{HEIGHT - 8}'>{pods:,}</text>"
        )
    return "".join(parts)


class _Scale:
    def __init__(self, low: float, high: float, begin: float, end: float) -> None:
        self._low, self._span = math.log(low), math.log(high) - math.log(low) or 1.0
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        share = (math.log(value) - self._low) / self._span
        return self._begin + share * (self._end - self._begin)


def _scale(values: Sequence[float], begin: float, end: float) -> _Scale:
    return _Scale(min(values), max(values), begin, end)
