"""Names in requests, as every view reads them."""

from __future__ import annotations

from control.server.xds.view import names_asked
from control.wire import discovery_pb2 as pb


def test_names_asked_for_and_given_back() -> None:
    request = pb.DeltaDiscoveryRequest(
        resource_names_subscribe=["a", "*", "a"], resource_names_unsubscribe=["b"]
    )
    assert names_asked(request) == ({"a", "*"}, {"b"})
