"""The listeners and clusters that each waypoint has and that never change: a service more or less
touches none.

    tunnel ─ connect_terminate ─┬─ in_http ─┬─ a backend's cluster ─ connect_originate ─ tunnel
             mTLS, CONNECT      └─ in_tcp ──┘                        mTLS as the waypoint

`connect_terminate` finds by the authority (a scope each) which front is meant, and says it to the
inner listener as state of the connection. There a header that no client can set picks the scope,
and with it the routes, of the front.
"""

from __future__ import annotations

from control.server.envoy import ends, inside, telemetry
from control.server.envoy.names import IN_HTTP, IN_TCP, Json
from control.server.envoy.settings import ShapeSettings


def listeners(trust_domain: str, service: str, settings: ShapeSettings) -> dict[str, Json]:
    """By name. `service`: the waypoint, as spans name it."""
    made = (
        ends.connect_terminate(trust_domain, settings),
        inside.in_http(service, settings),
        inside.in_tcp(settings),
        ends.connect_originate(),
    )
    return {each["name"]: each for each in made}


def clusters(trust_domain: str, settings: ShapeSettings) -> dict[str, Json]:
    made = [inside.into(IN_HTTP), inside.into(IN_TCP), ends.tunnels_out(trust_domain)]
    if settings.tracing is not None:
        made.append(telemetry.otlp_cluster(settings.tracing))
    return {each["name"]: each for each in made}
