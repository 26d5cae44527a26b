"""Roles are for the type checker alone: at run time they are the endpoint itself."""

from __future__ import annotations

import pytest

from control.model.address import parse_endpoint
from ztunnel.mesh.roles import Accepted, Asked, NextHop, Target


@pytest.mark.parametrize("role", [Accepted, Asked, NextHop, Target])
def test_a_role_costs_nothing(role: type) -> None:
    endpoint = parse_endpoint("10.0.0.1:80")
    assert role(endpoint) is endpoint
