"""Names of strangers, and what a tenant holds."""

from __future__ import annotations

import pytest

from control.model.address import parse_address
from ztunnel.tenants.tenancy import QUOTAS, Kind, Tenancy, source_name


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fd71:1:2:3:4:5:6:7", "fd71:1:2:3::/64"),
        ("fd71:1:2:3::1", "fd71:1:2:3::/64"),
        ("fd71:1:2:4::1", "fd71:1:2:4::/64"),
        ("::1", "::/64"),
    ],
)
def test_a_stranger_is_an_ipv4_address_or_an_ipv6_prefix(address: str, name: str) -> None:
    assert source_name(parse_address(address)) == name


def test_a_tenant_that_holds_nothing_is_idle() -> None:
    tenant = Tenancy(Kind.PEER, "x")
    assert tenant.idle
    tenant.held[QUOTAS - 1] = 1
    assert not tenant.idle
    assert repr(tenant) == "peer:x"
