from __future__ import annotations

from control.server.envoy import parts


def test_rules_that_are_missing_refuse() -> None:
    """Routes bring them; a route that brings none must not be an open door."""
    deny = parts.refusing("d", "DENY")["typed_config"]["rules"]
    assert deny["action"] == "DENY"
    assert deny["policies"]["no rules"]["principals"] == [parts.EVERYTHING]
    allow = parts.refusing("a", "ALLOW")["typed_config"]["rules"]
    assert allow == {"action": "ALLOW", "policies": {}}


def test_keys_of_tunnels_and_requests_have_different_lengths() -> None:
    for copies in (1, 2):
        made = parts.scopes("s", "x-h", copies)["scope_key_builder"]["fragments"]
        assert len(made) == copies
        assert made[0]["header_value_extractor"]["name"] == "x-h"


def test_metadata_that_goes_along() -> None:
    made = parts.through_inside(("a", "b"))["typed_config"]["passthrough_metadata"]
    assert [each["name"] for each in made] == ["a", "b"]
