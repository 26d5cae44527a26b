"""The certificate that ports show is made anew at half of its life, on every port."""

from __future__ import annotations

from pathlib import Path

from control.server.ca.keys import load_authority
from control.server.ports import PortCertificate, ServingCertificates
from tests.support.clock import FakeClock


def test_renewal_at_half_life(tmp_path: Path) -> None:
    clock = FakeClock()
    authority = load_authority(tmp_path, "td", clock)
    certificates = ServingCertificates(authority, ["localhost"], clock)
    ports = [PortCertificate(certificates), PortCertificate(certificates)]
    assert all(port.credentials() is not None for port in ports)
    assert [port.fetch() for port in ports] == [None, None]
    clock.pass_s(12 * 3600 + 60)
    assert all(port.fetch() is not None for port in ports), "each port has to hear of it"
    assert [port.fetch() for port in ports] == [None, None]
