"""`tulle top`: the tenants of each node, those that use most first."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.agent.cli.mesh_example import B, example
from tests.unit.agent.cli.verbs import rows, run, save


def test_each_node_lists_its_tenants_in_order(dump: str) -> None:
    titles, *found = rows(run("top", "-f", dump))
    shown = [(line[0], line[titles.index("TENANT")]) for line in found]
    assert shown == [("n1", B), ("n1", "shop/a"), ("n2", B), ("n2", "shop/b")]
    first = dict(zip(titles, found[0], strict=True))
    assert (first["CPU"], first["CONNECTIONS"], first["REFUSED"]) == ("1.500s", "3", "7")


def test_a_ztunnel_that_tells_of_none_is_not_an_error(tmp_path: Path) -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        del parts["ztunnel"]["tenants"]
    result = run("top", "-f", save(tmp_path, mesh))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "nobody uses a ztunnel\n"


def test_machines_get_numbers(dump: str) -> None:
    first = json.loads(run("top", "-f", dump, "-o", "json").stdout)[0]
    assert (first["cpu_s"], first["owes_ms"], first["queued"]) == (1.5, 0, 0)
