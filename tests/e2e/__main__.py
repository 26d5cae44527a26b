"""`make e2e KUBECONFIG=…`: the main job's steps on a real cluster whose nodes have the image.

It installs, enrols, tries, and uninstalls; its namespaces are tulle-e2e and tulle-e2e-plain.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from tests.e2e import steps
from tests.e2e.claims import Claims, summary
from tests.e2e.cluster import MESH, Cluster, Settings
from tests.e2e.kubectl import CommandFailed, Kubectl, ran
from tests.e2e.views import steadiness

INSTALL_S = 900.0


def tulle(kubectl: Kubectl, *arguments: str) -> str:
    chosen = ["--kubeconfig", kubectl.kubeconfig]
    chosen += ["--context", kubectl.context] if kubectl.context else []
    command = [sys.executable, "-m", "agent.cli.main", *arguments, *chosen]
    return ran(command, timeout_s=INSTALL_S)


def installing(image: str, platform: str, more: tuple[str, ...]) -> list[str]:
    """Arguments of `tulle install` for this image: NAME:TAG, NAME@DIGEST, or both."""
    name, _, digest = image.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # a registry's port is no tag
        repository, tag = name, ""
    words = [f"image.repository={repository}", f"platform={platform}"]
    words += [f"image.tag={tag}"] if tag else []
    words += [f"image.digest={digest}"] if digest else []
    return ["install", *(part for word in (*words, *more) for part in ("--set", word))]


@click.command()
@click.option("--kubeconfig", required=True, type=click.Path(exists=True), help="The cluster's.")
@click.option("--context", default="", help="Context in it.")
@click.option("--image", default="tulle:0.1.0", show_default=True, help="The nodes have it.")
@click.option("--platform", default="generic", show_default=True, help="The chart's platform.")
@click.option("--set", "words", multiple=True, metavar="NAME=VALUE", help="As `tulle install`'s.")
@click.option("--cni-conf-dir", default="/etc/cni/net.d", show_default=True)
@click.option("--installed", is_flag=True, help="Tulle is there, and stays.")
@click.option("--only", default="", help=f"Some of {','.join(steps.STEPS)}.")
@click.option("--keep", is_flag=True, help="Leave the run's pods where they are.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the outcomes as JSON.")
def main(
    kubeconfig: str,
    context: str,
    image: str,
    platform: str,
    words: tuple[str, ...],
    cni_conf_dir: str,
    installed: bool,
    only: str,
    keep: bool,
    report: Path | None,
) -> None:
    """Try Tulle on a real cluster, and say what holds. Exit code 1: something does not."""
    chosen = only.split(",") if only else list(steps.STEPS)
    unknown = [name for name in chosen if name not in steps.STEPS]
    if unknown:
        raise click.BadParameter(f"no step {', '.join(unknown)}", param_hint="--only")
    kubectl = Kubectl(str(Path(kubeconfig).absolute()), context)
    cluster = Cluster(kubectl, Settings(image, cni_conf_dir))
    claims = Claims(click.echo)
    claims.begin("install")
    ready = installed or claims.done(
        "Tulle is installed", lambda: tulle(kubectl, *installing(image, platform, words))
    )
    try:
        if ready:
            carry_out(claims, cluster, chosen)
            if not installed:
                uninstall(claims, cluster)
    finally:
        if not keep:
            steps.clean(cluster)
    click.echo("\n" + summary(claims.outcomes))
    if report is not None:
        report.write_text(json.dumps([asdict(each) for each in claims.outcomes], indent=1) + "\n")
    sys.exit(bool(claims.failed))


def carry_out(claims: Claims, cluster: Cluster, chosen: list[str]) -> None:
    """A step that cannot go on is a failed claim; the next one may."""
    for name in chosen:
        claims.begin(name)
        try:
            steps.STEPS[name](claims, cluster)
        except (CommandFailed, KeyError, IndexError, ValueError, StopIteration) as exc:
            claims.figure("the step could be carried out", f"{type(exc).__name__}: {exc}", "")


def uninstall(claims: Claims, cluster: Cluster) -> None:
    claims.begin("uninstall")
    before = steadiness(cluster.kubectl.items("pods", MESH))
    with steps.called(claims, cluster, "Tulle is uninstalled", is_cut=True):
        is_done = claims.done(
            "Tulle is uninstalled", lambda: tulle(cluster.kubectl, "uninstall", "--purge", "--yes")
        )
    if is_done:
        steps.left(claims, cluster, before)


if __name__ == "__main__":
    main()
