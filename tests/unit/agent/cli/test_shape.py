"""The shape of a dump: whatever is damaged, the place is named, and nothing else is raised."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agent.cli.shape import check_dump, check_page
from control.kit.errors import ConfigError
from tests.unit.agent.cli.mesh_example import example


def test_a_good_dump_passes() -> None:
    check_dump(example().as_json(), "file")
    check_dump({"nodes": {}, "control": {}, "labels": {}}, "file")
    check_dump({"nodes": {"n1": {}}, "control": {"pods": None}, "labels": {}}, "file")


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ({"nodes": []}, "nodes"),
        ({"labels": None}, "labels"),
        ({"control": {"pods": 7}}, "control.pods"),
        ({"control": {"status": [1]}}, "control.status"),
        ({"nodes": {"n1": 3}}, "nodes.n1"),
        ({"nodes": {"n1": {"ztunnel": []}}}, ""),  # nothing there
        ({"nodes": {"n1": {"ztunnel": [1]}}}, "nodes.n1.ztunnel"),
        ({"nodes": {"n1": {"ztunnel": {"workloads": [1]}}}}, "nodes.n1.ztunnel.workloads"),
        ({"nodes": {"n1": {"ztunnel": {"workloads": [{}]}}}}, "nodes.n1.ztunnel.workloads"),
        ({"nodes": {"n1": {"ztunnel": {"workloadState": [1]}}}}, "nodes.n1.ztunnel.workloadState"),
        (
            {
                "nodes": {
                    "n1": {"ztunnel": {"workloadState": {"u": {"connections": {"inbound": 1}}}}}
                }
            },
            "nodes.n1.ztunnel.workloadState.u.connections.inbound",
        ),
        ({"nodes": {"n1": {"agent": {"pods": [{"name": "x"}]}}}}, "nodes.n1.agent.pods"),
        ({"nodes": {"n1": {"check": [{}]}}}, "nodes.n1.check"),
    ],
)
def test_damage_is_named_by_its_place(damage: dict[str, Any], where: str) -> None:
    value = {**example().as_json(), **damage}
    if not where:
        check_dump(value, "file")
        return
    with pytest.raises(ConfigError, match=re.escape(f"file: {where}: ")):
        check_dump(value, "file")


@pytest.mark.parametrize(
    ("part", "good"),
    [
        ("agent", {"pods": [{"namespace": "a", "name": "b"}]}),
        ("check", []),
        ("ztunnel", {"workloads": [{"uid": "u"}]}),
        ("logging", {}),
        ("status", {}),
        ("workloads", [{"uid": "u"}]),
        ("policies", [{}]),
        ("problems", [{}]),
    ],
)
def test_a_page_of_another_shape_is_none(part: str, good: object) -> None:
    check_page(part, good, "GET /x")
    bad: list[object] = [None, 7, "x", [7], [] if isinstance(good, dict) else {}]
    for value in bad:
        with pytest.raises(ConfigError, match="GET /x: not an answer of this version"):
            check_page(part, value, "GET /x")
