from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format, message_factory

from control.model.http_policy import HttpClause, HttpMatch, HttpPolicy
from control.model.http_policy import HttpPolicyRule as PolicyRule
from control.model.policy import Action
from control.model.route import (
    Cors,
    Destination,
    HeaderChange,
    HttpRule,
    Layer,
    Mirror,
    RequestMatch,
    Retry,
    Rewrite,
)
from control.server.envoy import descriptors, routes, shape, tunnels
from control.server.envoy.names import any_of
from control.server.envoy.settings import ShapeSettings, Tracing
from control.wire.types import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SCOPE_TYPE
from tests.unit.control.server.envoy.worlds import front

TRACED = ShapeSettings(tracing=Tracing("10.0.0.9", 4318, 0.25))
POLICY = HttpPolicy(
    "shop/p", Action.DENY, (PolicyRule((HttpClause((HttpMatch(methods=()),)),)), PolicyRule())
)
RULE = HttpRule(
    "r",
    RequestMatch("/a"),
    ("a.shop",),
    (Destination("a", 3), Destination("", 1, HeaderChange(("x",), (("y", "é%"),)))),
    rewrite=Rewrite("h", prefix="/"),
    mirrors=(Mirror("m", 0.5),),
    cors=Cors(("*",), ("GET",), credentials=True),
    retry=Retry(2, (503, 504), 0.0125),
    timeout_s=1.25,
)
FRONT = front(rules=(RULE,), policies=(POLICY,))
SHARED = front(layer=Layer.TCP, destinations=(Destination("a"), Destination("b")))


def message_class(type_url: str) -> Any:
    found = descriptors._pool().FindMessageTypeByName(type_url.rpartition("/")[2])
    return message_factory.GetMessageClass(found)


@pytest.mark.parametrize(
    ("type_url", "value"),
    [
        *((LISTENER_TYPE, each) for each in shape.listeners("d", "w", TRACED).values()),
        *((CLUSTER_TYPE, each) for each in shape.clusters("d", TRACED).values()),
        (ROUTE_TYPE, routes.configuration(FRONT)),
        (ROUTE_TYPE, routes.configuration(front())),
        (SCOPE_TYPE, routes.scope(FRONT)),
        (SCOPE_TYPE, tunnels.scope("10.0.0.1:80", tunnels.host(SHARED))),
        (SCOPE_TYPE, tunnels.scope("[fd00::1]:80", tunnels.refusal())),
        (CLUSTER_TYPE, {"name": "", "connect_timeout": "0s", "type": "STATIC"}),
        (
            CLUSTER_TYPE,
            {
                "metadata": {
                    "filter_metadata": {
                        "b": {"y": {"z": "1"}},
                        "a": {"t": True, "f": False, "n": 1.5},
                    }
                }
            },
        ),
        (ENDPOINT_TYPE, {"policy": {"overprovisioning_factor": 0}}),
    ],
)
def test_the_library_reads_what_it_would_have_written(type_url: str, value: dict[str, Any]) -> None:
    wanted = message_class(type_url)()
    json_format.ParseDict(value, wanted, descriptor_pool=descriptors._pool())
    assert descriptors.decode(type_url, descriptors.encode(type_url, value)) == descriptors.decode(
        type_url, wanted.SerializeToString()
    )


def test_a_message_that_is_bytes_already() -> None:
    whole = tunnels.scope("10.0.0.1:80", tunnels.host(FRONT))
    part = descriptors.encode(tunnels.HOST_TYPE, tunnels.host(FRONT))
    assert descriptors.encode(SCOPE_TYPE, tunnels.scope("10.0.0.1:80", part)) == (
        descriptors.encode(SCOPE_TYPE, whole)
    )


@pytest.mark.parametrize(
    "value",
    [
        {"nmae": "c"},
        {"name": 1},
        {"connect_timeout": "soon"},
        {"connect_timeout": "1"},
        {"connect_timeout": "-1s"},
        {"type": "WRONG"},
        {"per_connection_buffer_limit_bytes": 1 << 32},
        {"per_connection_buffer_limit_bytes": -1},
        {"per_connection_buffer_limit_bytes": "1"},
        {"load_assignment": []},
        {"filters": "x"},
        {"transport_socket": {"typed_config": {}}},
        {"transport_socket": {"typed_config": any_of("no.such.Type")}},
    ],
)
def test_another_form_is_an_error(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        descriptors.encode(CLUSTER_TYPE, value)
