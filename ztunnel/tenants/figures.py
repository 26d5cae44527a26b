"""Figures of the tenants that use a worker most, and of all others together; a bounded number."""

from __future__ import annotations

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
}

Figures = dict[str, Any]


def figures(tenants: Iterable[Tenancy], shown_max: int = SHOWN_MAX) -> list[Figures]:
    """A row for each of those that use most, and one for the rest."""
    rows = [_row(each) for each in tenants if not each.idle or each.refused or each.cpu_s]
    rows.sort(key=_weight, reverse=True)
    rest = rows[shown_max:]
    del rows[shown_max:]
    if rest:
        other: Figures = {"kind": OTHER, "name": OTHER}
        for row in rest:
            add(other, row)
        rows.append(other)
    return rows


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
