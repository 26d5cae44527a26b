from __future__ import annotations

import pytest

from tests.unit.agent.cli.cluster.conftest import Tulle
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods


def asked(mesh: MeshInPods) -> list[tuple[str, ...]]:
    found = [(each.pod.rpartition("-")[0], *each.words[2:]) for each in mesh.asked]
    return sorted(each for each in found if "level" in each)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("n1", "debug"),
            [("tulle-agent", "log", "level", "n1", "debug")],
        ),
        (
            ("-", "debug", "--component", "ztunnel"),
            [
                ("tulle-agent", "log", "level", "n1", "debug", "--component=ztunnel"),
                ("tulle-agent", "log", "level", "n2", "debug", "--component=ztunnel"),
            ],
        ),
        (
            ("-", "debug", "--component", "control"),
            [("tulle-control", "log", "level", "-", "debug", "--component=control")] * 2,
        ),
    ],
)
def test_the_level_is_set_in_the_pods_that_are_meant(
    example_mesh: MeshInPods,
    run: Tulle,
    words: tuple[str, ...],
    expected: list[tuple[str, ...]],
) -> None:
    done = run("log", "level", *words)
    assert done.exit_code == 0, done.stderr
    assert asked(example_mesh) == expected


def test_reset_reaches_every_process(example_mesh: MeshInPods, run: Tulle) -> None:
    assert run("log", "reset").exit_code == 0
    assert [each[0] for each in asked(example_mesh)] == ["tulle-agent"] * 2 + ["tulle-control"] * 2


def test_a_pod_in_which_it_was_not_set_is_named(example_mesh: MeshInPods, run: Tulle) -> None:
    example_mesh.silent.add("tulle-agent-1")
    done = run("log", "level", "-", "debug")
    assert done.exit_code == 1
    assert "set in 3 of 4 pods; tulle-agent-1: error: no socket here" in done.stderr


def test_a_node_that_is_not_there_is_refused(example_mesh: MeshInPods, run: Tulle) -> None:
    done = run("log", "level", "n9", "debug")
    assert done.exit_code == 2
    assert "no node 'n9'; there are: n1, n2" in done.stderr
