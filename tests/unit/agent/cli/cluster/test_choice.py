from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli.cluster.choice import ClusterChoice, chosen, cluster_options


@click.group()
@click.option("--run-dir", default="", envvar="TULLE_RUN_DIR")
@click.pass_context
def root(ctx: click.Context, run_dir: str) -> None:
    ctx.obj = run_dir


SEEN: list[ClusterChoice | None] = []


@root.command()
@cluster_options
@click.pass_context
def verb(ctx: click.Context) -> None:
    SEEN.append(chosen(ctx))


def choice(default: Path, env: dict[str, str], *words: str) -> ClusterChoice | None:
    root.params[0].default = str(default)
    nothing = {"KUBECONFIG": "", "HOME": "/nonexistent", "KUBERNETES_SERVICE_HOST": ""}
    done = CliRunner(env={**nothing, **env}).invoke(root, words)
    assert done.exit_code == 0, done.output
    return SEEN[-1]


def test_a_mesh_on_this_host_is_meant_before_a_kubeconfig(tmp_path: Path) -> None:
    config = {"KUBECONFIG": "/x"}
    assert choice(tmp_path, config, "verb") == ClusterChoice()
    (tmp_path / "n1").mkdir()
    assert choice(tmp_path, config, "verb") is None


def test_an_option_names_the_cluster_whatever_is_here(tmp_path: Path) -> None:
    (tmp_path / "n1").mkdir()
    assert choice(tmp_path, {}, "verb", "--context", "c") == ClusterChoice(None, "c")
    found = choice(tmp_path, {}, "verb", "--kubeconfig", "/f", "--context", "c")
    assert found == ClusterChoice(Path("/f"), "c")


def test_a_run_folder_that_is_named_means_this_host(tmp_path: Path) -> None:
    config = {"KUBECONFIG": "/x"}
    assert choice(tmp_path, config, "--run-dir", str(tmp_path), "verb") is None
    assert choice(tmp_path, {**config, "TULLE_RUN_DIR": str(tmp_path)}, "verb") is None


def test_without_mesh_and_kubeconfig_it_is_this_host(tmp_path: Path) -> None:
    assert choice(tmp_path / "none", {}, "verb") is None
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").touch()
    pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert choice(tmp_path / "none", pod, "verb") == ClusterChoice()
    home = {"HOME": str(tmp_path)}
    assert choice(tmp_path / "none", home, "verb") == ClusterChoice()


@pytest.mark.parametrize("words", [["verb", "--help"]])
def test_the_options_are_in_the_help(words: list[str]) -> None:
    assert "--kubeconfig" in CliRunner().invoke(root, words).output
