"""A waypoint's tunnels, both ways: who gets in, where to, and as whom."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.model.address import parse_address, parse_block
from control.model.http_policy import HttpClause, HttpMatch, HttpPolicy, HttpPolicyRule
from control.model.policy import Action, Match, StringMatch, StringMatchKind
from control.model.route import BackendEndpoint, Destination, Layer, Spoken
from control.server.envoy import telemetry
from tests.interop.waypoint.conftest import Shop
from tests.support.engine.tunnel_bed import App, eventually
from tests.support.peers.tunnel_client import ask
from tests.support.waypoint.bed import HttpApp, account, backend, by_name, front, waypoint_bed

GREETING = b"220 at your service\n"
LOOPBACK = parse_block("127.0.0.0/8")
OTHER_DOMAIN = "spiffe://other.domain/ns/shop/sa/shopper"


def greet(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    while data := connection.recv(1 << 16):
        connection.sendall(data)


@pytest.fixture
def greeter(shop: Shop) -> Iterator[tuple[BackendEndpoint, App]]:
    """A server that speaks first."""
    address = shop.bed.pods.add(f"greeter-{id(object())}", account("greeter"))
    app = App(address, greet)
    yield BackendEndpoint(parse_address(address), app.port, account("greeter")), app
    app.close()


def reached(shop: Shop, authority: str, who: str = "shopper") -> int:
    with shop.bed.tunnel(who, authority) as tunnel:
        return tunnel.status


def has_scope(shop: Shop, authority: str) -> bool:
    dump = shop.bed.admin("/config_dump?mask=dynamic_scoped_route_configs")
    return f'"tunnel|{authority}"' in dump


def principal(name: str, *, is_not: bool = False) -> HttpMatch:
    text = (StringMatch(StringMatchKind.SUFFIX, f"/sa/{name}"),)
    return HttpMatch(l4=Match(not_principals=text) if is_not else Match(principals=text))


def policy(action: Action, match: HttpMatch) -> HttpPolicy:
    return HttpPolicy("shop/tcp", action, (HttpPolicyRule((HttpClause((match,)),)),))


def test_a_server_that_speaks_first_greets_those_who_may_alone(
    shop: Shop, greeter: tuple[BackendEndpoint, App]
) -> None:
    endpoint, app = greeter
    shop.bed.apply(
        by_name(
            front(
                "shop/smtp:25",
                "10.96.1.1",
                layer=Layer.TCP,
                policies=(policy(Action.ALLOW, principal("shopper")),),
            )
        ),
        by_name(backend("shop/smtp:25", endpoint, spoken=Spoken.TCP)),
    )
    eventually(lambda: reached(shop, "10.96.1.1:25") == 200, "the front is there")
    with shop.bed.tunnel("shopper", "10.96.1.1:25") as tunnel:
        assert tunnel.read(len(GREETING)) == GREETING
        tunnel.send(b"echo")
        assert tunnel.read(4) == b"echo"
    eventually(lambda: app.accepted >= 2, "both came")
    before = app.accepted
    with shop.bed.tunnel("stranger", "10.96.1.1:25") as tunnel:
        assert tunnel.status == 403
        assert GREETING not in tunnel.read(1000)
    assert app.accepted == before
    assert shop.bed.ads.nacks == []


def test_tcp_denies_by_principal_and_by_fields_it_cannot_see(
    shop: Shop, greeter: tuple[BackendEndpoint, App]
) -> None:
    paths = (StringMatch(StringMatchKind.PREFIX, "/admin"),)
    for number, (match, action, shopper, admin) in enumerate(
        (
            (principal("admin"), Action.DENY, 200, 403),
            (principal("admin", is_not=True), Action.DENY, 403, 200),
            (HttpMatch(paths=paths), Action.DENY, 403, 403),
            (HttpMatch(paths=paths), Action.ALLOW, 403, 403),
            (HttpMatch(l4=principal("admin").l4, paths=paths), Action.DENY, 200, 403),
            (HttpMatch(l4=Match(source_ips=(LOOPBACK,))), Action.DENY, 403, 403),
            (HttpMatch(l4=Match(not_source_ips=(LOOPBACK,))), Action.DENY, 200, 200),
        )
    ):
        name, vip = f"shop/deny{number}:25", f"10.96.2.{number}"
        made = front(name, vip, layer=Layer.TCP, policies=(policy(action, match),))
        shop.bed.apply(by_name(made), by_name(backend(name, greeter[0], spoken=Spoken.TCP)))
        wanted = {"shopper": shopper, "admin": admin}
        seen = {}
        eventually(lambda at=vip: has_scope(shop, f"{at}:25"), "the scope is there")
        for who in wanted:
            seen[who] = reached(shop, f"{vip}:25", who)
        assert seen == wanted, (number, seen)


def test_tcp_is_shared_by_weight(shop: Shop, greeter: tuple[BackendEndpoint, App]) -> None:
    destinations = (Destination("shop/tcp-a:1", 3), Destination("", 1))
    made = front("shop/shared:1", "10.96.3.1", layer=Layer.TCP, destinations=destinations)
    shop.bed.apply(by_name(made), by_name(backend("shop/tcp-a:1", greeter[0], spoken=Spoken.TCP)))
    eventually(lambda: reached(shop, "10.96.3.1:1") in (200, 503), "the front is there")
    count = Counter(reached(shop, "10.96.3.1:1") for _ in range(60))
    assert count.keys() == {200, 503}
    assert 28 <= count[200] <= 59, count


def test_tcp_without_destinations_is_closed(shop: Shop) -> None:
    made = front("shop/closed:1", "10.96.3.2", layer=Layer.TCP, destinations=())
    shop.bed.apply(by_name(made))
    eventually(lambda: reached(shop, "10.96.3.2:1") == 503, "it refuses")


def test_nothing_is_reached_that_is_not_a_front(shop: Shop) -> None:
    pod = shop.pods["v1"]
    address = f"{'.'.join(map(str, pod.address))}:{pod.port}"
    for authority in (address, "10.96.99.99:80", "shop/v1:80", "requests|x", "x", ":80", "[::]:80"):
        assert reached(shop, authority) in (0, 400, 403, 404), authority
    assert not [each for each in shop.bed.apps["v1"].seen if each["headers"]["host"] == "nobody"]


def test_requests_beside_connect_reach_nothing(shop: Shop) -> None:
    shop.bed.apply(by_name(front("shop/v1:80", "10.96.4.1")))
    eventually(lambda: reached(shop, "10.96.4.1:80") == 200, "the front is there")
    before = len(shop.bed.apps["v1"].seen)
    for authority in ("10.96.4.1:80", "shop/v1:80"):
        with shop.bed.tunnel("shopper", authority, method="GET") as tunnel:
            assert tunnel.status in (0, 400, 403, 404)
    assert len(shop.bed.apps["v1"].seen) == before


def test_authorities_of_both_families_and_by_name(shop: Shop) -> None:
    shop.bed.apply(by_name(front("shop/dual:80", "10.96.5.1 fd00::5:1", backend="shop/v1:80")))
    eventually(lambda: reached(shop, "10.96.5.1:80") == 200, "the front is there")
    for authority in ("[fd00::5:1]:80", "dual.shop.svc.cluster.local:80"):
        with shop.bed.tunnel("shopper", authority) as tunnel:
            assert ask(tunnel).who == "v1", authority


def test_a_front_that_goes_is_not_reached_and_gives_its_address_to_another(shop: Shop) -> None:
    first, second = (
        front(f"shop/{name}:80", "10.96.6.1", backend=f"shop/{to}:80")
        for name, to in (("a", "v1"), ("b", "v2"))
    )

    def who() -> str:
        with shop.bed.tunnel("shopper", "10.96.6.1:80") as tunnel:
            return ask(tunnel).who if tunnel.status == 200 else str(tunnel.status)

    shop.bed.apply(by_name(second, first))
    eventually(lambda: who() == "v1", "the first by name has it")
    shop.bed.apply({"shop/a:80": None})
    eventually(lambda: who() == "v2", "the other takes over")
    shop.bed.apply({"shop/b:80": None})
    eventually(lambda: who() == "403", "nobody has it")
    assert shop.bed.ads.nacks == []


def test_the_application_sees_the_tunnels_identity_and_no_forged_one(shop: Shop) -> None:
    shop.bed.apply(by_name(front("shop/v1:80", "10.96.4.1")))
    eventually(lambda: reached(shop, "10.96.4.1:80") == 200, "the front is there")
    forged = {
        "x-forwarded-client-cert": f"URI={account('admin')}",
        "x-tulle-front": "shop/v2:80",
    }
    with shop.bed.tunnel("shopper", "10.96.4.1:80") as tunnel:
        answer = ask(tunnel, headers=forged)
    assert answer.who == "v1"
    seen = answer.seen["headers"]
    assert seen["x-forwarded-client-cert"] == f"By={account('waypoint')};URI={account('shopper')}"
    assert not [each for each in seen if each.startswith(("x-tulle", "x-envoy"))]


def test_identities_of_two_clients_never_mix(shop: Shop) -> None:
    shop.bed.apply(by_name(front("shop/v1:80", "10.96.4.1")))
    eventually(lambda: reached(shop, "10.96.4.1:80") == 200, "the front is there")
    with (
        shop.bed.tunnel("shopper", "10.96.4.1:80") as one,
        shop.bed.tunnel("admin", "10.96.4.1:80") as other,
    ):
        for _ in range(10):
            for tunnel, who in ((one, "shopper"), (other, "admin")):
                seen = ask(tunnel).seen["headers"]["x-forwarded-client-cert"]
                assert seen.endswith(f"/sa/{who}")


@pytest.mark.parametrize(
    "uris", [(OTHER_DOMAIN,), (str(account("shopper")), str(account("admin"))), ()]
)
def test_other_domains_and_two_names_get_nowhere(shop: Shop, uris: tuple[str, ...]) -> None:
    shop.bed.apply(by_name(front("shop/v1:80", "10.96.4.1")))
    eventually(lambda: reached(shop, "10.96.4.1:80") == 200, "the front is there")
    if not uris:
        uris = ("https://no.spiffe/id",)
    try:
        with shop.bed.tunnel("shopper", "10.96.4.1:80", uris=uris) as tunnel:
            assert tunnel.status in (0, 403)
    except OSError:
        pass  # in the handshake


def test_an_endpoint_with_another_certificate_gets_nothing(shop: Shop) -> None:
    other = shop.bed.pod("other")
    liar = BackendEndpoint(other.address, other.port, account("liar"))
    shop.bed.apply(
        by_name(front("shop/liar:80", "10.96.7.1")), by_name(backend("shop/liar:80", liar))
    )
    eventually(lambda: reached(shop, "10.96.7.1:80") == 200, "the front is there")
    with shop.bed.tunnel("shopper", "10.96.7.1:80") as tunnel:
        assert ask(tunnel).status == 503
    assert shop.bed.apps["other"].seen == []
    stats = shop.bed.admin("/stats?filter=connect_originate.ssl.fail_verify_san")
    assert int(stats.split(":")[1]) > 0


def test_a_pod_that_takes_over_an_address_is_asked_who_it_is(shop: Shop) -> None:
    """Kept connections were made to another identity."""
    first = shop.bed.pod("first", account("first"))
    shop.bed.apply(
        by_name(front("shop/moved:80", "10.96.7.2")), by_name(backend("shop/moved:80", first))
    )
    eventually(lambda: reached(shop, "10.96.7.2:80") == 200, "the front is there")
    with shop.bed.tunnel("shopper", "10.96.7.2:80") as tunnel:
        assert ask(tunnel).who == "first"
        moved = BackendEndpoint(first.address, first.port, account("second"))
        shop.bed.apply({}, by_name(backend("shop/moved:80", moved)))
        eventually(lambda: ask(tunnel).status == 503, "the first is not taken for the second")


def test_endpoints_outside_the_mesh_and_those_that_are_not_healthy(shop: Shop) -> None:
    plain = BackendEndpoint(parse_address("127.0.0.1"), _plain(shop))
    sick = BackendEndpoint(
        shop.pods["v2"].address, shop.pods["v2"].port, account("v2"), healthy=False
    )
    shop.bed.apply(
        by_name(front("shop/plain2:80", "10.96.8.1"), front("shop/sick:80", "10.96.8.2")),
        by_name(backend("shop/plain2:80", plain, sick), backend("shop/sick:80", sick)),
    )
    eventually(lambda: reached(shop, "10.96.8.2:80") == 200, "the fronts are there")
    with shop.bed.tunnel("shopper", "10.96.8.1:80") as tunnel:
        assert {ask(tunnel).who for _ in range(10)} == {"plain"}
    with shop.bed.tunnel("shopper", "10.96.8.2:80") as tunnel:
        assert ask(tunnel).status == 503


def _plain(shop: Shop) -> int:
    shop.bed.apps["plain"] = HttpApp("127.0.0.1", "plain")
    return shop.bed.apps["plain"].port


def test_many_streams_of_bytes_arrive_whole(
    shop: Shop, greeter: tuple[BackendEndpoint, App]
) -> None:
    shop.bed.apply(
        by_name(front("shop/bulk:1", "10.96.9.1", layer=Layer.TCP)),
        by_name(backend("shop/bulk:1", greeter[0], spoken=Spoken.ANY)),
    )
    eventually(lambda: reached(shop, "10.96.9.1:1") == 200, "the front is there")
    failures: list[str] = []

    def run(number: int) -> None:
        block = bytes([number]) * 10_000
        with shop.bed.tunnel("shopper", "10.96.9.1:1") as tunnel:
            if tunnel.read(len(GREETING)) != GREETING:
                failures.append("greeting")
            for _ in range(5):
                tunnel.send(block)
                if tunnel.read(len(block)) != block:
                    failures.append("block")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []


def test_a_waypoint_at_an_ipv6_address(tmp_path: Path) -> None:
    with waypoint_bed(tmp_path, address="::1") as bed:
        pod = bed.pod("four")
        bed.apply(by_name(front("shop/six:80", "fd00::6")), by_name(backend("shop/six:80", pod)))
        bed.start()
        with bed.tunnel("shopper", "[fd00::6]:80") as tunnel:
            assert ask(tunnel).who == "four"


def test_metrics_have_both_identities(shop: Shop) -> None:
    shop.bed.apply(by_name(front("shop/v1:80", "10.96.4.1")))
    eventually(lambda: reached(shop, "10.96.4.1:80") == 200, "the front is there")
    with shop.bed.tunnel("counted", "10.96.4.1:80") as tunnel:
        assert ask(tunnel).status == 200

    def lines() -> list[str]:
        text = shop.bed.admin("/stats/prometheus")
        return [
            each
            for each in text.splitlines()
            if "istio_requests_total{" in each and "/sa/counted" in each
        ]

    eventually(lambda: bool(lines()), "the request is counted")
    (line,) = lines()
    assert f'destination_principal="{account("v1")}"' in line
    assert 'destination_service="v1.shop.svc.cluster.local"' in line
    assert 'response_code="200"' in line


def test_many_callers_do_not_grow_the_metrics_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "SERIES_MAX", 5)
    with waypoint_bed(tmp_path) as bed:
        pod = bed.pod("v1")
        bed.apply(by_name(front("shop/v1:80", "10.96.4.1")), by_name(backend("shop/v1:80", pod)))
        bed.start()
        for number in range(15):
            with bed.tunnel(f"caller-{number}", "10.96.4.1:80") as tunnel:
                assert ask(tunnel).status == 200
        text = bed.admin("/stats/prometheus")
    lines = [each for each in text.splitlines() if "istio_requests_total{" in each]
    assert 1 <= len(lines) <= 5
