"""Figures of the tenants that use a worker most, and of all others together; a bounded number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from ztunnel.tenants.bounds import (
    CONNECTIONS,
    HANDSHAKES,
    IDLE_TUNNELS,
    LABEL_SETS,
    QUEUED_BYTES,
    TUNNELS,
)
from ztunnel.tenants.tenancy import Tenancy

# On the admin page, and as series of metrics; the rest is "other".
SHOWN_MAX: Final = 64
SERIES_MAX: Final = 10
OTHER: Final = "other"
_HELD: Final = {
    "connections": CONNECTIONS.number,
    "handshakes": HANDSHAKES.number,
    "tunnels": TUNNELS.number,
    "idleTunnels": IDLE_TUNNELS.number,
    "queuedBytes": QUEUED_BYTES.number,
    "labelSets": LABEL_SETS.number,
}
# Name of the gauge -> name in the row.
_GAUGES: Final = {
    "tulle_ztunnel_tenant_connections": "connections",
    "tulle_ztunnel_tenant_tunnels": "tunnels",
    "tulle_ztunnel_tenant_queued_bytes": "queuedBytes",
    "tulle_ztunnel_tenant_refused": "refused",
    "tulle_ztunnel_tenant_cpu_ms": "cpuMs",
    "tulle_ztunnel_tenant_slowed": "slowed",
}

Figures = dict[str, Any]


def figures(tenants: Iterable[Tenancy], shown_max: int = SHOWN_MAX) -> list[Figures]:
    """A row for each of those that use most, and one for the rest."""
    found = [(_row(each), each.cpu_s) for each in tenants if _did_something(each)]
    found.sort(key=lambda pair: _weight(pair[0]), reverse=True)
    rows = [row for row, _ in found[:shown_max]]
    rest = found[shown_max:]
    if rest:
        other: Figures = {"kind": OTHER, "name": OTHER}
        for row, _ in rest:
            add(other, row)
        # Many that had less than a millisecond each had some together. fsum(): compiled, sum() adds
        # what a generator gives to an int, and takes nothing else.
        other["cpuMs"] = round(1000 * math.fsum(cpu_s for _, cpu_s in rest))
        rows.append(other)
    return rows


def _did_something(tenant: Tenancy) -> bool:
    return bool(not tenant.idle or tenant.refused or tenant.cpu_s)


def _row(tenant: Tenancy) -> Figures:
    held = {name: tenant.held[number] for name, number in _HELD.items()}
    return {
        "kind": tenant.kind.value,
        "name": tenant.name,
        **held,
        "refused": tenant.refused,
        "linesLeftOut": tenant.left_out,
        "owesMs": round(tenant.debt_s * 1000),
        "cpuMs": round(tenant.cpu_s * 1000),
        "slowed": tenant.slowed,
    }


def _weight(row: Figures) -> tuple[int, int, int]:
    held = row["connections"] + row["handshakes"] + row["tunnels"]
    return row["cpuMs"], row["refused"], held


def add(into: Figures, row: Figures) -> None:
    """Add the numbers of a row to another."""
    for name, value in row.items():
        if isinstance(value, int):
            into[name] = into.get(name, 0) + value


def gauges(tenants: Iterable[Tenancy]) -> list[tuple[str, dict[str, str], int]]:
    """The same as series of metrics: name, labels, value."""
    return [
        (gauge, {"kind": row["kind"], "tenant": row["name"]}, row[name])
        for row in figures(tenants, SERIES_MAX)
        for gauge, name in _GAUGES.items()
    ]
