from __future__ import annotations

from control.model.address import parse_block
from control.server.envoy.names import any_of, extension, of_block, seconds


def test_an_extension_is_a_name_and_a_typed_value() -> None:
    kind = "extensions.filters.http.router.v3.Router"
    assert extension("router", kind, start_child_span=True) == {
        "name": "router",
        "typed_config": any_of(kind, start_child_span=True),
    }
    assert any_of(kind)["@type"] == f"type.googleapis.com/envoy.{kind}"


def test_durations_are_to_the_millisecond() -> None:
    assert [seconds(each) for each in (0, 0.025, 1.5, 0.0004)] == [
        "0.000s",
        "0.025s",
        "1.500s",
        "0.000s",
    ]


def test_a_block() -> None:
    assert of_block(parse_block("10.0.0.0/8")) == {"address_prefix": "10.0.0.0", "prefix_len": 8}
