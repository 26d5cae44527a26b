"""The relay where there is no control plane: Envoy's stream ends, with the reason."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import make_authority
from tests.unit.ztunnel.waypoint.grpc_fakes import Aborted, Stream
from ztunnel.waypoint import relay
from ztunnel.waypoint.config import WaypointConfig, gateway_of, identity_of
from ztunnel.waypoint.relay import AdsRelay

NOBODY = "127.0.0.1:1"  # nothing listens there
ROOT = make_authority().pem.decode()
GATEWAY = gateway_of("shop/waypoint")


def made(folder: Path, *, token: bool = True, root: str = ROOT) -> AdsRelay:
    if token:
        (folder / "token").write_text("t")
    config = WaypointConfig(
        gateway=GATEWAY,
        control=NOBODY,
        envoy=Path("/envoy"),
        identity=identity_of(GATEWAY, "td"),
        control_root=root,
        token=folder / "token",
    )
    return AdsRelay(config)


def ended(way: AdsRelay) -> str:
    """The end of one stream, as Envoy is told."""
    stream = Stream()
    context: Any = stream

    async def whole() -> None:
        async with asyncio.timeout(20):
            await way.deltas(stream.requests(), context)

    with pytest.raises(Aborted) as caught:
        asyncio.run(whole())
    return str(caught.value)


def test_without_a_control_plane_the_stream_ends(tmp_path: Path) -> None:
    way = made(tmp_path)
    assert ended(way).startswith("UNAVAILABLE")
    assert way.status.terminations == {"connect": 1}
    assert way.status.connected == 0
    assert way.status.error


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"token": False}, "token_unreadable"), ({"root": "/none"}, "roots_unreadable")],
)
def test_what_cannot_be_read_is_read_again_the_next_time(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    way = made(tmp_path, **fields)
    assert ended(way).startswith("UNAVAILABLE")
    assert way.status.terminations == {reason: 1}
    if reason == "token_unreadable":
        (tmp_path / "token").write_text("t")
        ended(way)
        assert way.status.terminations["connect"] == 1


def test_streams_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "STREAMS_MAX", 0)
    assert ended(made(tmp_path)).startswith("RESOURCE_EXHAUSTED")
