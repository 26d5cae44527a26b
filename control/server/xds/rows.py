"""Clients and waypoints as rows of the admin pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from control.model.route import WaypointKey
from control.server.metrics import short_type
from control.server.xds.client import Client, Nack
from control.server.xds.racks import Racks

CLIENTS_MAX: Final = 1000  # in a waypoint's row


def time_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def client_row(client: Client) -> dict[str, Any]:
    return {
        "id": client.node_id,
        **client.caller.words,
        "peer": client.peer,
        "since": time_text(client.since),
        "types": {
            short_type(url): {
                "wildcard": state.way.wildcard,
                "asked": len(state.asked),
                "known": state.way.held_count,
                "pending": state.way.pending_count,
                "in_flight": state.in_flight,
                "acked": state.acked,
                "nacked": state.nacked,
                "nacks": state.nacks,
            }
            for url, state in client.session.types.items()
        },
    }


def waypoint_rows(
    racks: Racks, clients: Iterable[Client], nacks: Mapping[WaypointKey, Nack]
) -> Iterator[dict[str, Any]]:
    """A row for each waypoint, by name: its resources by type, the Envoys that follow it, and the
    last that one of them did not take."""
    following: dict[WaypointKey, list[Client]] = {}
    for each in clients:
        if each.caller.waypoint is not None:
            following.setdefault(each.caller.waypoint, []).append(each)
    for key in sorted(racks.accounts):
        clients_here = sorted(following.get(key, ()), key=lambda each: each.node_id)
        shelves = racks.rack(key).shelves
        yield {
            "namespace": key.namespace,
            "name": key.name,
            "account": str(racks.accounts[key]),
            "resources": {short_type(url): len(each.entries) for url, each in shelves.items()},
            "clients": [client_row(each) for each in clients_here[:CLIENTS_MAX]],
            "nack": None if (nack := nacks.get(key)) is None else _nack_row(nack),
        }


def _nack_row(nack: Nack) -> dict[str, str]:
    return {
        "client": nack.client,
        "type": short_type(nack.type_url),
        "at": time_text(nack.at),
        "error": nack.error,
    }
