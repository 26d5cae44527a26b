"""The pod and the lab that a command line means."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from agent.lab.verbs.context import lab_of, reporting_lab_of, split_pod


@pytest.mark.parametrize(
    ("namespace", "name", "meant"),
    [
        ("default", "web", ("default", "web")),
        ("shop", "web", ("shop", "web")),
        ("default", "shop/web", ("shop", "web")),
        ("other", "shop/web", ("shop", "web")),  # the name is the more exact of the two
    ],
)
def test_a_pod_is_named_either_way(namespace: str, name: str, meant: tuple[str, str]) -> None:
    assert split_pod(namespace, name) == meant


def test_progress_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = click.Context(click.Command("x"), obj=tmp_path)
    lab_of(ctx).progress("unheard")
    reporting_lab_of(ctx).progress("starting")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(" s] starting\n")
    assert lab_of(ctx).run_dir == tmp_path
