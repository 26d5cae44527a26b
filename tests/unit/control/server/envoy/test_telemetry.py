from __future__ import annotations

import json

from control.server.envoy import telemetry
from control.server.envoy.settings import DEFAULTS, ShapeSettings

SILENT = ShapeSettings(access_log=False)


def test_counters_have_istios_names_and_are_bounded() -> None:
    (one,) = telemetry.request_log(SILENT)
    config = one["typed_config"]
    assert config["stats_scope"]["prefix"] == "istio."
    assert config["stats_scope"]["max_counters"] == telemetry.SERIES_MAX
    assert config["stats_scope"]["enable_eviction"]
    (counter,) = config["counters"]
    assert counter["stat"]["name"] == "requests_total"
    tags = {each["name"] for each in counter["stat"]["tags"]}
    assert tags >= {"reporter", "source_principal", "destination_principal", "response_code"}


def test_tunnels_have_lines_only_when_refused() -> None:
    (one,) = telemetry.tunnel_log(DEFAULTS)
    assert one["filter"]["status_code_filter"]["comparison"]["op"] == "GE"
    assert telemetry.tunnel_log(SILENT) == []


def test_a_line_says_of_which_kind_it_is_and_has_no_query() -> None:
    lines = telemetry.request_log(DEFAULTS)[0]["typed_config"]["log_format"]["json_format"]
    assert lines["scope"] == "request"
    assert "NQ" in lines["path"]
    assert (
        telemetry.tcp_log(DEFAULTS)[0]["typed_config"]["log_format"]["json_format"]["scope"]
        == "tcp"
    )
    assert "COOKIE" not in json.dumps(lines).upper()
