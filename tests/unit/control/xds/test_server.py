"""The port's own certificate is made anew at half of its life."""

from __future__ import annotations

from pathlib import Path

from control.ca.keys import load_authority
from control.xds.server import ServingCertificates
from tests.support.clock import FakeClock


def test_renewal_at_half_life(tmp_path: Path) -> None:
    clock = FakeClock()
    authority = load_authority(tmp_path, "td", clock)
    subject = ServingCertificates(authority, ["localhost"], clock)
    assert subject.credentials() is not None
    assert subject._fetch() is None
    clock.pass_s(12 * 3600 + 60)
    assert subject._fetch() is not None
    assert subject._fetch() is None
