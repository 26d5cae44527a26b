"""Rows of certificates, from an example mesh."""

from __future__ import annotations

from agent.cli.views.certificates import certificate_rows
from agent.cli.views.pages import Filter
from tests.unit.agent.cli.mesh_example import example


def test_leaves_come_with_their_validity_and_each_root_once() -> None:
    rows = certificate_rows(example(), Filter())
    assert [row["type"] for row in rows] == ["leaf", "leaf", "root"]
    assert (rows[0]["valid"], rows[0]["serial"], rows[0]["ends_in"]) == (True, "ff", "12h30m")
