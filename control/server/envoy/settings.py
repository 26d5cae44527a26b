"""Choices about waypoints that no object of the mesh makes."""

from __future__ import annotations

from dataclasses import dataclass

from control.model.workload import HBONE_PORT


@dataclass(frozen=True, slots=True)
class Tracing:
    """Spans go to `address`:`port` by OTLP over HTTP. `share` of the requests, 0 to 1, if the
    caller has not decided."""

    address: str
    port: int
    share: float = 0.01
    path: str = "/v1/traces"


@dataclass(frozen=True, slots=True)
class ShapeSettings:
    """`address`: of the listener for tunnels; `::` takes IPv4 as well."""

    address: str = "::"
    port: int = HBONE_PORT
    access_log: bool = True
    tracing: Tracing | None = None


DEFAULTS = ShapeSettings()
