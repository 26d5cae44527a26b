"""Counters of many workers added up: sums that never go back, and a help text for each name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ztunnel.supervisor
from ztunnel.supervisor.metrics import HELP, Tally

SOURCES = Path(ztunnel.supervisor.__file__).parents[1]
PREFIX = "tulle_ztunnel_"
# As a whole in the sources, or behind the prefix in `Counters.count`.
WHOLE = re.compile(r'"((?:tulle_ztunnel|istio|workload_manager)_[a-z_]+)"')
COUNTED = re.compile(r'counters\.count\(\s*"([a-z_]+)"(?: if \w+ else "([a-z_]+)")?')


def answer(opened: float, live: float) -> dict[str, Any]:
    name = "istio_tcp_connections_opened_total"
    return {
        "counters": [[name, {"reporter": "source"}, opened]],
        "gauges": [["istio_tcp_sockets_open", {"reporter": "source"}, live]],
    }


def figures(tally: Tally) -> dict[str, float]:
    return {each.name: each.value for each in tally.samples()}


def test_counters_of_the_dead_stay_and_their_gauges_go() -> None:
    tally = Tally()
    tally.heard(0, answer(5, 2))
    tally.heard(1, answer(7, 1))
    opened, live = "istio_tcp_connections_opened_total", "istio_tcp_sockets_open"
    assert figures(tally) == {opened: 12, live: 3}
    tally.heard(0, answer(6, 2))
    tally.worker_lost(0)
    assert figures(tally) == {opened: 13, live: 1}
    tally.heard(0, answer(1, 1))
    assert figures(tally) == {opened: 14, live: 2}


def test_pieces_add_up_and_gauges_are_replaced() -> None:
    tally = Tally()
    tally.heard(0, answer(5, 2))
    tally.heard(0, {"counters": [["other_total", {}, 1]], "more": True})
    tally.heard(0, {"counters": [["other_total", {}, 3]], "gauges": []})
    opened = "istio_tcp_connections_opened_total"
    assert figures(tally) == {opened: 5, "other_total": 3}


def test_nonsense_from_a_worker_changes_nothing() -> None:
    tally = Tally()
    tally.heard(0, answer(5, 2))
    before = figures(tally)
    for nonsense in (
        {},
        {"counters": 3},
        {"gauges": [[]]},
        {"counters": 3, "gauges": []},
        {"counters": [["a"]], "gauges": []},
    ):
        tally.heard(0, nonsense)
    assert figures(tally) == before


def test_every_name_in_the_sources_has_a_help_text() -> None:
    names: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        text = path.read_text()
        names.update(WHOLE.findall(text))
        for found in COUNTED.findall(text):
            names.update(f"{PREFIX}{name}_total" for name in found if name)
    assert len(names) > 30
    assert sorted(names - HELP.keys()) == []
