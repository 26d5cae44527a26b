"""`tulle version`: of this command alone, or of every process that answers."""

from __future__ import annotations

from pathlib import Path

from control.kit.version import version
from tests.unit.agent.cli.verbs import rows, run


def test_the_client_needs_no_mesh(tmp_path: Path) -> None:
    result = run("--run-dir", str(tmp_path), "version", "--client", "--no-headers")
    assert rows(result) == [["client", "-", version(), "-"]]


def test_every_process_of_a_dump(dump: str) -> None:
    _, client, *others = rows(run("version", "-f", dump))
    assert client[0] == "client"
    assert [line[:2] for line in others] == [
        ["control", "-"],
        ["agent", "n1"],
        ["ztunnel", "n1"],
        ["agent", "n2"],
        ["ztunnel", "n2"],
    ]
    assert {line[3] for line in others if line[0] == "ztunnel"} == {"yes"}


def test_without_a_mesh_the_client_is_shown_with_a_warning(tmp_path: Path) -> None:
    result = run("--run-dir", str(tmp_path), "version", "-o", "name")
    assert (result.exit_code, result.stdout) == (0, "client\n")
    assert "warning: " in result.stderr
