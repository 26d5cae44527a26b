"""The rows that a command's options select."""

from __future__ import annotations

from agent.cli.selector import parse
from agent.cli.views.objects import workload_rows
from agent.cli.views.pages import Filter
from tests.unit.agent.cli.mesh_example import example


def test_filters_by_namespace_and_label() -> None:
    assert workload_rows(example(), Filter(namespace="other")) == []
    rows = workload_rows(example(), Filter(namespace="shop", labels=parse(["app=b"])))
    assert [row["name"] for row in rows] == ["b"]
