from __future__ import annotations

from control.server.envoy import inside
from control.server.envoy.names import FRONT_HEADER, NOWHERE
from control.server.envoy.settings import DEFAULTS, ShapeSettings, Tracing

TRACED = ShapeSettings(tracing=Tracing("10.0.0.9", 4318, 0.5))


def manager(settings: ShapeSettings = DEFAULTS) -> dict[str, object]:
    (chain,) = inside.in_http("shop/waypoint", settings)["filter_chains"]
    found: dict[str, object] = chain["filters"][0]["typed_config"]
    return found


def test_the_paths_tricks_are_undone() -> None:
    made = manager()
    assert made["normalize_path"] is made["merge_slashes"] is True
    assert made["path_with_escaped_slashes_action"] == "REJECT_REQUEST"


def test_the_front_is_said_after_everything_of_the_clients_is_gone() -> None:
    (one,) = manager()["early_header_mutation_extensions"]  # type: ignore[misc]
    *removed, last = one["typed_config"]["mutations"]
    assert {"remove": FRONT_HEADER} in removed
    assert {"remove": "x-envoy-retry-on"} in removed
    assert last["append"]["header"]["key"] == FRONT_HEADER


def test_spans_only_if_somebody_takes_them() -> None:
    assert "tracing" not in manager()
    assert manager(TRACED)["tracing"]["random_sampling"] == {"value": 50}  # type: ignore[index]


def test_a_connection_without_a_cluster_goes_nowhere() -> None:
    (chain,) = inside.in_tcp(DEFAULTS)["filter_chains"]
    assert chain["filters"][0]["typed_config"]["cluster"] == NOWHERE
