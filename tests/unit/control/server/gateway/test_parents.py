"""Services that a route attaches to, and at which of their ports."""

from __future__ import annotations

import pytest

from tests.support.gateways import Bench, gateway, namespace, route, service

USE = "istio.io/use-waypoint: way"
PORTS = "{port: 80, name: http}, {port: 81, name: any}, {port: 443, name: https}"
WEB = gateway() + service("web", labels=USE, ports=PORTS)


def routed(bench: Bench) -> list[int]:
    return [each.port for each in bench.waypoint().fronts.values() if each.rules is not None]


@pytest.mark.parametrize(
    ("more", "ports", "reason"),
    [
        ("", [80, 81], "Accepted"),
        (", port: 81", [81], "Accepted"),
        (", sectionName: http", [80], "Accepted"),
        (", sectionName: http, port: 81", [], "NoMatchingParent"),
        (", port: 82", [], "NoMatchingParent"),
        (", port: 443", [], "NoMatchingParent"),  # it says that it is TLS
        (", sectionName: x", [], "NoMatchingParent"),
        (", namespace: other", [], "UnsupportedValue"),
    ],
)
def test_ports(more: str, ports: list[int], reason: str) -> None:
    text = WEB + namespace(name="other") + service("web", "other")
    parent = f"{{group: '', kind: Service, name: web{more}}}"
    bench = Bench(text + route("rules: [{}]", parent=parent))
    assert routed(bench) == ports
    assert bench.status().accepted.reason == reason
    assert bench.status().accepted.is_true == bool(ports)


def test_a_port_that_gets_another_name() -> None:
    parent = "{group: '', kind: Service, name: web, sectionName: one}"
    names = "{port: 80, name: two}, {port: 81, name: one}"
    bench = Bench(gateway() + route("rules: [{}]", parent=parent))
    assert bench.status().accepted.reason == "NoMatchingParent"
    bench.put(service("web", labels=USE, ports=names))
    assert routed(bench) == [81]
    swapped = names.replace("two", "x").replace("one", "two").replace("x", "one")
    bench.put(service("web", labels=USE, ports=swapped))
    assert routed(bench) == [80]


def test_other_kinds_of_parents_are_somebody_elses() -> None:
    bench = Bench(WEB + route("rules: [{}]", parent="{name: way}"))
    assert bench.gateways.statuses == ()
    assert routed(bench) == []


def test_one_route_may_have_several_parents() -> None:
    parents = "{group: '', kind: Service, name: web}, {group: '', kind: Service, name: gone}"
    bench = Bench(WEB + route("rules: [{}]", parent=parents))
    assert [each.accepted.is_true for each in bench.gateways.statuses] == [True, False]
