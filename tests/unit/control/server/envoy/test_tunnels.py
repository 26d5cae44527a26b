from __future__ import annotations

from typing import Any

from control.model.address import parse_address
from control.model.route import Destination, Layer
from control.server.envoy import tunnels
from control.server.envoy.names import IN_HTTP, IN_TCP
from tests.unit.control.server.envoy.worlds import front


def routes(**more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tunnels.host(front(**more))["routes"]
    return found


def test_a_front_is_known_by_its_addresses_and_its_name() -> None:
    assert tunnels.authorities(front()) == (
        "10.0.0.1:80",
        "[fd00::1]:80",
        "web.shop.svc.cluster.local:80",
    )
    twice = front(addresses=(parse_address("10.0.0.1"),) * 2)
    assert len(tunnels.authorities(twice)) == 2


def test_http_goes_on_to_the_requests_and_says_which_front_it_is() -> None:
    (route,) = routes()
    assert route["route"]["cluster"] == IN_HTTP
    assert route["metadata"]["filter_metadata"]["tulle"] == {
        "service": "web.shop.svc.cluster.local",
        "front": "shop/web:80",
    }


def test_tcp_goes_to_its_backend_by_default() -> None:
    (route,) = routes(layer=Layer.TCP)
    assert route["route"]["cluster"] == IN_TCP
    assert route["metadata"]["filter_metadata"]["tulle"]["cluster"] == "shop/web:80"


def test_shares_of_tcp_add_up() -> None:
    some = (Destination("a", 1), Destination("b", 0), Destination("", 2), Destination("c", 1))
    first, second, last = routes(layer=Layer.TCP, destinations=some)
    fractions = [each["match"]["runtime_fraction"]["default_value"] for each in (first, second)]
    assert [each["numerator"] for each in fractions] == [250_000, 750_000]
    assert second["direct_response"] == {"status": 503}
    assert last["match"] == {"connect_matcher": {}}


def test_tcp_without_destinations_is_refused() -> None:
    for none in ((), (Destination("a", 0),)):
        (route,) = routes(layer=Layer.TCP, destinations=none)
        assert route["direct_response"] == {"status": 503}


def test_a_key_of_a_tunnel_has_one_part() -> None:
    assert len(tunnels.scope("x:1", b"")["key"]["fragments"]) == 1
