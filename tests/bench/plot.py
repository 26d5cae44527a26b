"""A run as a picture: how many times better or worse than the reference, one panel a topology.

Pure: a result in, SVG text out. Bars start at 1 (the reference) and go right for better, left for
worse, on a scale on which twice and half are equally far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from tests.bench.model import METRICS, Result, System, Topology, ratio

WIDTH, LABEL_W, RIGHT_W = 960, 330, 70
TOP, ROW_H, BAR_H, PANEL_GAP = 92, 14, 11, 74
SCALE_MAX = 4.0  # a value further off is drawn at the edge, with its number
INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
COLORS = {
    "Tulle": "#0f766e",
    "Envoy": "#b45309",
    "HAProxy": "#94a3b8",
    "ztunnel": "#7c3aed",
    "no mesh": "#1d4ed8",
}
FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, sans-serif'"

_HEADLINES = (
    ("c1", "p50_us", "1 connection, p50"),
    ("c1", "rps", "1 connection, requests/s"),
    ("c64", "rps", "64 connections, requests/s"),
    ("c64", "p99_us", "64 connections, p99"),
    ("pingpong", "p50_us", "64 B ping-pong, p50"),
    ("pingpong", "p99_us", "64 B ping-pong, p99"),
    ("close", "rps", "new connections/s"),
    ("bulk1", "gbit_s", "bulk, 1 stream to the server"),
    ("bulk1r", "gbit_s", "bulk, 1 stream back"),
    ("bulk4", "gbit_s", "bulk, 4 streams to the server"),
    ("bulk4r", "gbit_s", "bulk, 4 streams back"),
    ("fairness", "beside_p99_us", "64 connections beside bulk, p99"),
    ("c64", "cpu_out_us", "CPU per request, client side"),
    ("c64", "cpu_in_us", "CPU per request, server side"),
    ("c64", "rss_out_mib", "RSS, client side"),
    ("c64", "rss_in_mib", "RSS, server side"),
)
_REFERENCE = {Topology.CROSS: System.ENVOY, Topology.SAME: System.NONE}
_SHOWN = {
    Topology.CROSS: (System.TULLE, System.HAPROXY, System.ZTUNNEL),
    Topology.SAME: (System.TULLE, System.ENVOY, System.HAPROXY, System.ZTUNNEL),
}


@dataclass(frozen=True, slots=True)
class Bar:
    system: str
    better: float  # 2.0: twice as good as the reference


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    bars: tuple[Bar, ...]


def groups(result: Result, topology: Topology) -> list[Group]:
    """The comparisons that this run allows."""
    found = []
    reference = _REFERENCE[topology].value
    for case, metric, label in _HEADLINES:
        bars = []
        for system in _SHOWN[topology]:
            value = ratio(
                result.figure(topology.value, case, system.value, metric),
                result.figure(topology.value, case, reference, metric),
            )
            if value:
                better = value if METRICS[metric].more_is_better else 1 / value
                bars.append(Bar(system.value, better))
        if bars:
            found.append(Group(label, tuple(bars)))
    return found


def svg(result: Result) -> str:
    parts: list[str] = []
    y = TOP
    for topology in Topology:
        rows = groups(result, topology)
        if rows:
            drawn, y = _panel(topology, rows, y)
            parts += drawn
    if not parts:
        parts.append(_text(24, y, "nothing in this run can be compared", MUTED, 13))
    height = y + 16
    head = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' "
        f"width='{WIDTH}' height='{height}' {FONT} role='img' aria-label='Benchmark of Tulle'>",
        f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>",
        _text(24, 34, "Times better than the reference", INK, 20, bold=True),
        _text(24, 56, _about(result), MUTED, 12),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _about(result: Result) -> str:
    machine = result.machine
    known = [f"{machine['cores']} cores" if "cores" in machine else "", machine.get("cpu", "")]
    known += [f"Linux {machine['kernel']}" if "kernel" in machine else "", result.started_at[:10]]
    return " · ".join(filter(None, ["medians of interleaved rounds", *known]))


def _panel(topology: Topology, rows: list[Group], y: int) -> tuple[list[str], int]:
    reference = _REFERENCE[topology].value
    parts = [_text(24, y, f"{topology.value}, against {reference}", INK, 15, bold=True)]
    names = dict.fromkeys(bar.system for group in rows for bar in group.bars)
    x = LABEL_W
    for name in names:
        parts.append(
            f"<rect x='{x}' y='{y - 10}' width='12' height='12' rx='2' fill='{COLORS[name]}'/>"
        )
        parts.append(_text(x + 18, y, name, INK, 12))
        x += 90
    top = y + 34
    heights = [ROW_H * len(group.bars) + 8 for group in rows]
    bottom = top + sum(heights)
    for tick in (0.25, 0.5, 1.0, 2.0, 4.0):
        at, is_one = _x(tick), tick == 1.0
        color, width = (INK, 1.5) if is_one else (GRID, 1)
        parts.append(
            f"<line x1='{at:.1f}' x2='{at:.1f}' y1='{top - 6}' y2='{bottom}' "
            f"stroke='{color}' stroke-width='{width}'/>"
        )
        label = reference if is_one else f"{tick:g}×"
        parts.append(_text(at, top - 11, label, INK if is_one else MUTED, 11, anchor="middle"))
    at_y = top
    for group, height in zip(rows, heights, strict=True):
        middle = at_y + height / 2
        parts.append(_text(LABEL_W - 14, middle + 4, group.label, INK, 13, anchor="end"))
        for index, bar in enumerate(group.bars):
            parts += _bar(bar, at_y + 4 + index * ROW_H)
        at_y += height
    return parts, int(bottom) + PANEL_GAP


def _bar(bar: Bar, y: float) -> list[str]:
    one, end = _x(1.0), _x(bar.better)
    left, width = min(one, end), max(1.0, abs(end - one))
    is_right = bar.better >= 1
    label_x, anchor = (end + 5, "start") if is_right else (end - 5, "end")
    return [
        f"<rect x='{left:.1f}' y='{y:.1f}' width='{width:.1f}' height='{BAR_H}' rx='2' "
        f"fill='{COLORS[bar.system]}'/>",
        _text(label_x, y + BAR_H - 1.5, f"{bar.better:.2f}×", INK, 11, anchor=anchor),
    ]


def _x(better: float) -> float:
    """Place of a ratio on the axis; a value beyond the scale lies at its end."""
    bounded = min(SCALE_MAX, max(1 / SCALE_MAX, better))
    share = (math.log2(bounded) / math.log2(SCALE_MAX) + 1) / 2
    inner = WIDTH - LABEL_W - RIGHT_W - 46
    return LABEL_W + 46 + share * inner


def _text(
    x: float,
    y: float,
    text: str,
    color: str,
    size: int,
    *,
    bold: bool = False,
    anchor: str = "start",
) -> str:
    weight = " font-weight='600'" if bold else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' fill='{color}' font-size='{size}' "
        f"text-anchor='{anchor}'{weight}>{escape(text)}</text>"
    )
