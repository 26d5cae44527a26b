"""The kernel's tables and rings as rows. Pure."""

from __future__ import annotations

from agent.cli.mesh import MeshDump
from agent.cli.views.pages import Row


def map_rows(mesh: MeshDump) -> list[Row]:
    """Every kernel table and ring of every node, the fullest first."""
    rows: list[Row] = []
    for node, parts in sorted(mesh.nodes.items()):
        for item in (parts.get("agent") or {}).get("maps") or []:
            used, limit = int(item.get("used") or 0), int(item.get("max") or 0)
            share = round(100 * used / limit, 1) if limit else 0.0
            rows.append(
                {
                    "name": item["name"],
                    "node": node,
                    "used": used,
                    "max": limit,
                    "percent": share,
                    "drops": int(item.get("drops") or 0),
                }
            )
    return sorted(rows, key=lambda row: (row["node"], -row["percent"], row["name"]))
