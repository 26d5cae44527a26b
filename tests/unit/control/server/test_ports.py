"""The port's certificate, renewed at half of its life; calls with one message."""

from __future__ import annotations

import ssl
from pathlib import Path

from control.server.ca.keys import load_authority
from control.server.ports import ServingCertificates, TlsContexts
from tests.support.authorities import held
from tests.support.clock import FakeClock


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
