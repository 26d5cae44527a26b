"""Small waypoints for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.route import Backend, Front, Layer, Spoken, WaypointDelta, WaypointKey

KEY = WaypointKey("shop", "waypoint")
ACCOUNT = SpiffeId("cluster.local", "shop", "waypoint")


def front(name: str = "shop/web:80", **more: Any) -> Front:
    namespace, _, rest = name.partition("/")
    service, _, port = rest.rpartition(":")
    hostname = f"{service}.{namespace}.svc.cluster.local"
    given = {
        "addresses": (parse_address("10.0.0.1"), parse_address("fd00::1")),
        "layer": Layer.HTTP,
        "backend": name,
    } | more
    return Front(name, f"{namespace}/{hostname}", hostname, port=int(port), **given)


def backend(name: str = "shop/web:80", spoken: Spoken = Spoken.HTTP1) -> Backend:
    return Backend(name, "shop/web", spoken)


def delta(
    fronts: Mapping[str, Front | None] | None = None,
    backends: Mapping[str, Backend | None] | None = None,
    **more: Any,
) -> WaypointDelta:
    return WaypointDelta(KEY, ACCOUNT, fronts or {}, backends or {}, **more)
