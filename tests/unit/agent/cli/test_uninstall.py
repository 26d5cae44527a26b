"""The words of `tulle uninstall`; its work is tested on a cluster."""

from __future__ import annotations

from agent.cli import uninstall
from tests.unit.agent.cli.verbs import run


def test_the_question_names_what_is_lost() -> None:
    assert "every policy and the CA's key" in uninstall._question(True)
    assert "policy" not in uninstall._question(False)


def test_it_needs_a_cluster() -> None:
    assert run("uninstall", "--yes", "--kubeconfig", "/nonexistent").exit_code == 1
