"""Requests through a waypoint: forwarding, routes, policies, and no way around it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest

from tests.support.lab.mesh_bed import FAMILIES, soon
from tests.support.lab.waypoint_bed import (
    GREETING_PORT,
    HTTP_PORT,
    REFUSED,
    WaypointBed,
    ask,
    greeting,
)

NAMESPACE = "spiffe://cluster.local/ns/mesh/sa"
REQUESTS = 200


def route(rules: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: mesh}}
spec:
  parentRefs: [{{group: "", kind: Service, name: web, port: 80}}]
  rules: [{rules}]
"""


def to(*shares: tuple[str, int], match: str = "") -> str:
    refs = [f"{{name: {name}, port: 80, weight: {weight}}}" for name, weight in shares]
    matches = f"matches: [{match}], " if match else ""
    return f"{{{matches}backendRefs: [{', '.join(refs)}]}}"


def policy(rules: str, action: str = "DENY", name: str = "l7") -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: mesh}}
spec:
  targetRefs: [{{group: "", kind: Service, name: web}}]
  action: {action}
  rules: [{rules}]
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_service_is_served_by_its_waypoint(bed: WaypointBed, family: int) -> None:
    replies = [bed.get("client", "web", family=family) for _ in range(10)]
    assert {each.who for each in replies} == {"v1", "v2"}
    told = replies[0].body["headers"]["x-forwarded-client-cert"]
    assert told == f"By={NAMESPACE}/gate;URI={NAMESPACE}/client"


def test_a_forged_word_about_the_client_does_not_pass(bed: WaypointBed) -> None:
    forged = f"By=x;URI={NAMESPACE}/admin"
    headers = bed.get("client", "web", x_forwarded_client_cert=forged).body["headers"]
    assert headers["x-forwarded-client-cert"].endswith(f"URI={NAMESPACE}/client")


@pytest.mark.parametrize("pod", ["v1", "v2"])  # on the client's own node, and on the other
@pytest.mark.parametrize("family", FAMILIES)
def test_there_is_no_way_around_it(bed: WaypointBed, pod: str, family: int) -> None:
    address = bed.address(pod, family)
    for _ in range(3):  # again: the first may have made a verdict for the kernel
        assert bed.get_at("client", address, HTTP_PORT) == REFUSED
        # The refusal may overtake the handshake's end.
        with (
            suppress(ConnectionResetError),
            bed.dial("client", address, GREETING_PORT) as sock,
        ):
            assert greeting(sock) == ""
    # By a service without a waypoint neither: the pod itself admits its waypoint alone.
    assert bed.get("client", f"web-{pod}", family=family) == REFUSED


def test_a_server_that_speaks_first_is_heard_through_it(bed: WaypointBed) -> None:
    with bed.dial("client", bed.virtual("web"), 90) as sock:
        assert greeting(sock) in ("hello from v1", "hello from v2")
        sock.sendall(b"x" * 100_000 + b"\n")
        read = 0
        while read < 100_001:
            piece = sock.recv(65536)
            assert piece
            read += len(piece)


def test_a_canary_has_its_share(bed: WaypointBed) -> None:
    with bed.objects(route(to(("web-v1", 80), ("web-v2", 20)))):
        soon(lambda: told(bed, "web-v1"), "the route is there")
        connection = bed.open("client", bed.virtual("web"), 80)
        found = Counter(ask(connection).who for _ in range(REQUESTS))
        connection.close()
    assert found.keys() == {"v1", "v2"}
    # Five standard deviations of a binomial share are 28 of 200.
    assert abs(found["v2"] - REQUESTS * 0.2) <= 28, found
    soon(lambda: not told(bed, "web-v1"), "the route is gone")


def told(bed: WaypointBed, backend: str) -> bool:
    """True once Envoy has the route; a cluster may stay for longer."""
    return (
        f"mesh/{backend}:80"
        in bed.waypoint("/envoy/config_dump?resource=dynamic_route_configs").body.decode()
    )


def test_a_header_picks_a_version_and_an_unmatched_request_is_404(bed: WaypointBed) -> None:
    header = '{path: {type: PathPrefix, value: /shop}, headers: [{name: x-version, value: "2"}]}'
    path = "{path: {type: PathPrefix, value: /shop}}"
    rules = f"{to(('web-v2', 1), match=header)}, {to(('web-v1', 1), match=path)}"
    with bed.objects(route(rules)):
        soon(lambda: bed.get("client", "web", "/elsewhere").status == 404, "the route is there")
        assert {bed.get("client", "web", "/shop", x_version="2").who for _ in range(8)} == {"v2"}
        assert {bed.get("client", "web", "/shop/a").who for _ in range(8)} == {"v1"}
        assert bed.get("client", "web", "/shopping").status == 404
    soon(lambda: bed.get("client", "web", "/elsewhere").status == 200, "the route is gone")


def test_a_policy_denies_by_identity_and_path_on_open_connections_too(bed: WaypointBed) -> None:
    source = "{principals: [cluster.local/ns/mesh/sa/other]}"
    rule = f"{{from: [{{source: {source}}}], to: [{{operation: {{paths: [/admin*]}}}}]}}"
    forbidden = bed.open("other", bed.virtual("web"), 80)
    allowed = bed.open("client", bed.virtual("web"), 80)
    assert (ask(forbidden, "/admin").status, ask(allowed, "/admin").status) == (200, 200)
    with bed.objects(policy(rule)):
        soon(lambda: ask(forbidden, "/admin").status == 403, "refused on the same connection")
        assert ask(forbidden, "/else").status == 200
        assert ask(allowed, "/admin").status == 200
        for trick in ("/x/../admin", "//admin", "/%61dmin", "/admin/../admin"):
            assert ask(forbidden, trick).status in (400, 403), trick
    soon(lambda: ask(forbidden, "/admin").status == 200, "allowed again")
    forbidden.close()
    allowed.close()


def test_requests_are_counted_by_who_asked_whom(bed: WaypointBed) -> None:
    bed.get("client", "web")
    line = f'source_principal="{NAMESPACE}/client"'

    def counted() -> bool:
        text = bed.waypoint("/metrics").body.decode().splitlines()
        return any(each.startswith("istio_requests_total{") and line in each for each in text)

    soon(counted, "the request is counted")
