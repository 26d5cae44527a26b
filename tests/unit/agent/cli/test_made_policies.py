"""Names that nobody wrote are told as those of the objects that users know."""

from __future__ import annotations

import pytest

from agent.cli.made_policies import made_of, name_of, words
from control.model.route import WaypointKey
from control.server.compile import mutual_tls
from control.server.compile.enclosures import enclosure
from control.server.compile.settings import Settings


def test_the_names_are_those_that_the_control_plane_gives() -> None:
    assert name_of(mutual_tls.STATIC_STRICT) == "(STRICT)"
    assert name_of(f"{mutual_tls.CONVERTED_PREFIX}web") == "web"
    assert name_of("allow-web") == ""
    one, two = WaypointKey("shop", "way"), WaypointKey("shop", "gate")
    assert made_of(enclosure([one], Settings()).name) == ("Waypoint", "(only by shop/way)")
    kind, told = made_of(enclosure([one, two], Settings()).name)
    assert (kind, told.startswith("(only by several, ")) == ("Waypoint", True)
    assert made_of("allow-web") == ("", "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "explicitly denied by: istio-system/istio_converted_static_strict",
            "explicitly denied by: PeerAuthentication (STRICT)",
        ),
        (
            "waits for shop/converted_peer_authentication_web, shop/p",
            "waits for PeerAuthentication shop/web, shop/p",
        ),
        (
            "explicitly denied by: istio-system/only_by_waypoint_shop_way",
            "explicitly denied by: Waypoint shop/way (only it may call this pod)",
        ),
        (
            "explicitly denied by: istio-system/only_by_waypoints_0123456789abcdef",
            "explicitly denied by: Waypoint (only its waypoints may call this pod)",
        ),
        ("explicitly denied by: shop/p", "explicitly denied by: shop/p"),
    ],
)
def test_sentences(text: str, told: str) -> None:
    assert words(text) == told
