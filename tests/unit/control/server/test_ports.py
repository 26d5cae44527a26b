"""The port's certificate, renewed at half of its life; calls with one message."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from control.model.route import WaypointKey
from control.server.ca.keys import load_authority
from control.server.ports import ServingCertificates, TlsContexts, handlers
from control.wire.types import CREATE_CERTIFICATE_METHOD, DELTA_METHOD, REPORT_METHOD
from tests.support.authorities import held
from tests.support.calls import Aborted, Call
from tests.support.clock import FakeClock
from tests.support.control_door import DoorBench


def test_renewal_at_half_life(tmp_path: Path) -> None:
    clock = FakeClock()
    authority = load_authority(tmp_path, "td", clock)
    contexts = TlsContexts(ServingCertificates(held(authority, clock), ["localhost"], clock))
    first = contexts.current()
    assert contexts.current() is first
    clock.pass_s(12 * 3600 + 60)
    assert contexts.current() is not first


def test_a_certificate_from_a_clock_that_was_ahead_is_replaced(tmp_path: Path) -> None:
    clock = FakeClock()
    authority = load_authority(tmp_path, "td", clock)
    clock.pass_s(10 * 3600)
    contexts = TlsContexts(ServingCertificates(held(authority, clock), ["localhost"], clock))
    first = contexts.current()
    clock.pass_s(-9 * 3600)
    assert contexts.current() is not first


def test_the_port_speaks_tls_1_3_only(tmp_path: Path) -> None:
    clock = FakeClock()
    authority = load_authority(tmp_path, "td", clock)
    context = TlsContexts(
        ServingCertificates(held(authority, clock), ["localhost"], clock)
    ).current()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0


class Service:
    """In place of all three: says which one was called."""

    async def stream(self, _: AsyncIterator[bytes], context: Call) -> None:
        raise AssertionError("xDS asks the door itself")

    async def create(self, *_: object) -> bytes:
        return b"signed"

    async def report(self, *_: object) -> bytes:
        return b"reported"


@pytest.mark.parametrize(
    ("method", "waypoint", "answer"),
    [
        (CREATE_CERTIFICATE_METHOD, None, b"signed"),
        (CREATE_CERTIFICATE_METHOD, WaypointKey("shop", "way"), b"signed"),
        (REPORT_METHOD, None, b"reported"),
        (REPORT_METHOD, WaypointKey("shop", "way"), None),
    ],
)
def test_who_may_call_a_method_with_one_message(
    method: str, waypoint: WaypointKey | None, answer: bytes | None
) -> None:
    """xDS is for both, and shows each its own: test_streams_waypoints.py."""
    bench = DoorBench()
    bench.is_waypoint = lambda _: True
    fake: Any = Service()
    found = handlers(bench.door, fake, fake, fake)
    assert found.keys() == {DELTA_METHOD, CREATE_CERTIFICATE_METHOD, REPORT_METHOD}

    async def requests() -> AsyncIterator[bytes]:
        yield b"x"

    call: Any = found[method].stream_unary(requests(), bench.call("n1", waypoint))
    if answer is not None:
        assert asyncio.run(call) == answer
        return
    with pytest.raises(Aborted) as ended:
        asyncio.run(call)
    assert ended.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert bench.refused("report", "not_a_node") == 1
