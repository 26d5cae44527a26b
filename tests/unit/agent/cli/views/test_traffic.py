"""Rows of connections, from an example mesh."""

from __future__ import annotations

from agent.cli.views.pages import Filter
from agent.cli.views.traffic import connection_rows
from tests.unit.agent.cli.mesh_example import A, B, connection, example


def test_connections_show_both_identities_age_and_bytes() -> None:
    rows = connection_rows(example(), Filter())
    assert [(row["direction"], row["node"]) for row in rows] == [
        ("outbound", "n1"),
        ("inbound", "n2"),
    ]
    first = rows[0]
    assert (first["src"], first["dst"], first["orig_dst"]) == ("shop/a", "shop/b", "172.20.0.10:80")
    assert (first["src_id"], first["dst_id"], first["age"], first["bytes"]) == (A, B, "4m10s", 42)
    assert [row["name"] for row in connection_rows(example(), Filter(name="b"))] == ["b"]
    assert len(connection_rows(example(), Filter(), "inbound")) == 1


def test_a_connection_says_who_carries_it() -> None:
    mesh = example()
    held = mesh.nodes["n1"]["ztunnel"]["workloadState"]["u1"]["connections"]
    held["outbound"] = [
        connection(openedAt="2026-11-22T11:55:50+00:00"),
        connection(path="direct", openedAt="2026-11-22T11:55:51+00:00"),
        connection(protocol="TCP", openedAt="2026-11-22T11:55:52+00:00"),
        connection(path="carrier pigeon", openedAt="2026-11-22T11:55:53+00:00"),
    ]
    rows = connection_rows(mesh, Filter(), "outbound")
    assert [row["path"] for row in rows] == ["hbone", "direct", "tcp", "hbone"]
