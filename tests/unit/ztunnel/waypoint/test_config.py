"""Settings of a waypoint: names of Gateways, and the identity that follows from one."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from control.model.identity import SpiffeId
from control.model.route import WaypointKey
from ztunnel.config import LiteralToken
from ztunnel.waypoint.config import WaypointConfig, gateway_of, identity_of

GATEWAY = WaypointKey("shop", "waypoint")


@pytest.mark.parametrize("text", ["shop", "/waypoint", "shop/", "a/b/c", "shop/way~point", ""])
def test_a_gateway_is_a_namespace_and_a_name(text: str) -> None:
    assert gateway_of("shop/waypoint") == GATEWAY
    with pytest.raises(ConfigError):
        gateway_of(text)


def test_the_account_has_the_gateways_name() -> None:
    assert identity_of(GATEWAY, "td") == SpiffeId("td", "shop", "waypoint")
    with pytest.raises(ConfigError):
        identity_of(GATEWAY, "Not a domain")


def test_the_settings_show_no_secret() -> None:
    config = WaypointConfig(
        gateway=GATEWAY,
        control="c:15012",
        envoy=Path("/envoy"),
        identity=identity_of(GATEWAY, "td"),
        token=LiteralToken("eyJsecret"),
        pod_name="waypoint-1",
    )
    assert "secret" not in str(config.as_json()).replace("secret_ttl_s", "")
    assert config.node_id == "waypoint~shop~waypoint~waypoint-1"
    assert config.admin_socket == Path("/run/tulle/waypoints/shop.waypoint-1.sock")
    assert (config.ca, config.ca_root, config.ca_name) == ("c:15012", "SYSTEM", "")
