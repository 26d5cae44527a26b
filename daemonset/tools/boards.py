"""Grafana boards out of a short table: a row is a panel's title, its unit, and its queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "chart/dashboards"
PANEL_WIDTH, PANEL_HEIGHT, BOARD_WIDTH = 12, 8, 24
RATE = "[$__rate_interval]"

Panel = tuple[str, str, dict[str, str]]  # title, unit, legend -> query

MESH: list[Panel] = [
    (
        "Connections opened",
        "cps",
        {
            "{{reporter}} {{connection_security_policy}}": "sum by (reporter, "
            f"connection_security_policy) (rate(istio_tcp_connections_opened_total{RATE}))"
        },
    ),
    (
        "Bytes",
        "Bps",
        {
            "from client to server": f"sum(rate(istio_tcp_received_bytes_total{RATE}))",
            "from server to client": f"sum(rate(istio_tcp_sent_bytes_total{RATE}))",
        },
    ),
    (
        "Refusals by reason",
        "cps",
        {"{{reason}}": f"sum by (reason) (rate(tulle_ztunnel_refusals_total{RATE}))"},
    ),
    (
        "Connections that failed, by destination",
        "cps",
        {
            "{{destination_workload}}": "topk(10, sum by (destination_workload) "
            f"(rate(istio_tcp_connections_failed_total{RATE})))"
        },
    ),
    ("Tunnels open", "short", {"{{instance}}": "tulle_ztunnel_tunnels"}),
    (
        "Path of connections",
        "cps",
        {"{{path}}": f"sum by (path) (rate(tulle_agent_connections_total{RATE}))"},
    ),
]
NODES: list[Panel] = [
    ("Pods by state", "short", {"{{state}}": "sum by (state) (tulle_agent_pods)"}),
    (
        "Agents with a control plane",
        "short",
        {"connected": "sum(tulle_agent_control_connected)", "all": "count(tulle_agent_ztunnels)"},
    ),
    ("Ztunnels by node", "short", {"{{instance}}": "tulle_agent_ztunnels"}),
    (
        "Fill of kernel tables",
        "percentunit",
        {"{{map}}": "max by (map) (tulle_agent_map_used / tulle_agent_map_max)"},
    ),
    (
        "Refusals of the kernel half",
        "cps",
        {"{{event}}": f"sum by (event) (rate(tulle_agent_kernel_events_total{RATE}))"},
    ),
    (
        "Failed enrolment steps",
        "cps",
        {"{{reason}}": f"sum by (reason) (rate(tulle_agent_enrolment_failures_total{RATE}))"},
    ),
    (
        "Time to capture a pod",
        "s",
        {
            "mean": f"sum(rate(tulle_agent_enrolment_seconds_total{RATE})) / "
            f"sum(rate(tulle_agent_enrolments_total{RATE}))"
        },
    ),
    (
        "Worker restarts",
        "short",
        {"{{instance}}": "increase(tulle_ztunnel_worker_restarts_total[1h])"},
    ),
]
CONTROL: list[Panel] = [
    ("Open xDS streams", "short", {"{{instance}} {{kind}}": "tulle_control_connected"}),
    (
        "Pushes",
        "ops",
        {"{{type}}": f"sum by (type) (rate(tulle_control_pushes_total{RATE}))"},
    ),
    (
        "Time to compile, p99",
        "s",
        {
            "p99": "histogram_quantile(0.99, sum by (le) "
            f"(rate(tulle_control_compile_duration_seconds_bucket{RATE})))"
        },
    ),
    (
        "Certificates",
        "ops",
        {"{{result}} {{reason}}": f"sum by (result, reason) (rate(tulle_control_csr_total{RATE}))"},
    ),
    ("Objects in force", "short", {"{{kind}}": "max by (kind) (tulle_control_objects)"}),
    ("Objects refused", "short", {"{{reason}}": "max by (reason) (tulle_control_problems)"}),
    (
        "Calls refused",
        "ops",
        {"{{reason}}": f"sum by (reason) (rate(tulle_control_refused_total{RATE}))"},
    ),
    (
        "Days until the root expires",
        "d",
        {"root": "(min(tulle_control_root_expiry_timestamp_seconds) - time()) / 86400"},
    ),
]
BOARDS = {
    "mesh": ("Tulle: mesh", MESH),
    "nodes": ("Tulle: nodes", NODES),
    "control": ("Tulle: control plane", CONTROL),
}
SOURCE = {"type": "prometheus", "uid": "${source}"}


def panel(number: int, row: Panel) -> dict[str, Any]:
    title, unit, queries = row
    per_row = BOARD_WIDTH // PANEL_WIDTH
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {
            "h": PANEL_HEIGHT,
            "w": PANEL_WIDTH,
            "x": number % per_row * PANEL_WIDTH,
            "y": number // per_row * PANEL_HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": query, "legendFormat": name}
            for at, (name, query) in enumerate(queries.items())
        ],
    }


def board(name: str) -> dict[str, Any]:
    title, rows = BOARDS[name]
    return {
        "uid": f"tulle-{name}",
        "title": title,
        "tags": ["tulle"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Source", "type": "datasource"} | SOURCE_QUERY]
        },
        "panels": [panel(number, row) for number, row in enumerate(rows)],
    }


SOURCE_QUERY = {"query": "prometheus", "current": {}, "hide": 0}


def files() -> dict[Path, str]:
    return {FOLDER / f"{name}.json": json.dumps(board(name), indent=1) + "\n" for name in BOARDS}
