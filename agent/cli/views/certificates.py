"""Leaves and roots of every node as rows. Pure."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from agent.cli.mesh import MeshDump
from agent.cli.views.moments import duration, moment
from agent.cli.views.pages import Filter, Row, ztunnels


def certificate_rows(mesh: MeshDump, wanted: Filter) -> list[Row]:
    """Leaves of each node by identity, then each root once; roots belong to no namespace."""
    rows: list[Row] = []
    roots: dict[str, Row] = {}
    for node, dump in ztunnels(mesh):
        for item in dump.get("certificates") or []:
            identity = str(item.get("identity") or "")
            base = {"name": identity, "namespace": _namespace_of(identity), "node": node}
            base["status"] = item.get("state", "")
            chain = item.get("certChain") or []
            if not chain:
                rows.append({**base, "type": "leaf", "valid": False})
            for index, one in enumerate(chain):
                kind = "leaf" if index == 0 else "intermediate"
                rows.append({**base, "type": kind, **_validity(one, mesh.taken_at)})
            for one in item.get("rootCerts") or []:
                validity = _validity(one, mesh.taken_at)
                name = {"name": "(root)", "namespace": "", "node": "", "status": "Available"}
                roots[str(validity["serial"])] = {**name, "type": "root", **validity}
    leaves = [row for row in rows if wanted.namespace in ("", row["namespace"])]
    leaves.sort(key=lambda row: (row["name"], row["node"]))
    return leaves if wanted.namespace else leaves + list(roots.values())


def _namespace_of(identity: str) -> str:
    """The namespace of spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT."""
    parts = identity.split("/")
    return parts[4] if len(parts) > 5 and parts[3] == "ns" else ""


def _validity(item: Row, now: datetime) -> Row:
    start, end = item.get("validFrom"), item.get("expirationTime")
    valid = bool(start and end) and moment(str(start)) <= now < moment(str(end))
    number = item.get("serialNumber")
    return {
        "valid": valid,
        "serial": format(int(str(number)), "x") if str(number).isdigit() else number,
        "not_before": start,
        "not_after": end,
        "ends_in": duration((moment(str(end)) - now).total_seconds()) if end else None,
        "pem": _pem(item.get("pem")),
    }


def _pem(text: object) -> str | None:
    try:
        return base64.b64decode(str(text)).decode("ascii") if text else None
    except (binascii.Error, ValueError):
        return str(text)
