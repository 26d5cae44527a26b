"""Names that nobody wrote are told as those of the objects that users know."""

from __future__ import annotations

import pytest

from agent.cli.made_policies import name_of, words
from control.server.compile import mutual_tls


def test_the_names_are_those_that_the_control_plane_gives() -> None:
    assert name_of(mutual_tls.STATIC_STRICT) == "(STRICT)"
    assert name_of(f"{mutual_tls.CONVERTED_PREFIX}web") == "web"
    assert name_of("allow-web") == ""


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
        ("explicitly denied by: shop/p", "explicitly denied by: shop/p"),
    ],
)
def test_sentences(text: str, told: str) -> None:
    assert words(text) == told
