"""`tulle lab stop`, `kill` and `restart` of processes that this lab never had."""

from __future__ import annotations

import pytest

from control.kit.errors import ConfigError
from tests.unit.agent.lab.verbs.conftest import Run


@pytest.mark.parametrize("verb", ["stop", "kill", "restart"])
def test_an_unmeshed_lab_has_no_control_plane(run: Run, verb: str) -> None:
    result = run(verb, "control")
    assert isinstance(result.exception, ConfigError)
    assert "this lab has no control (was it brought up --unmeshed?)" in str(result.exception)


def test_a_node_must_be_one_of_the_labs(run: Run) -> None:
    result = run("stop", "ztunnel", "n7")
    assert "no node 'n7'" in str(result.exception)
    assert run("stop", "database").exit_code == 2
