"""`tulle install` and `tulle upgrade`: put Tulle into a cluster, or a newer one in its place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agent.cli.chart import release, settings
from agent.cli.chart.functions import to_yaml
from agent.cli.chart.settings import Settings
from agent.cli.cluster import install as steps
from agent.cli.cluster import rollout
from agent.cli.cluster.choice import ClusterChoice, cluster_options, of_cluster, patience
from agent.cli.cluster.install import Order, Plan
from agent.cli.cluster.objects import Applied, in_order
from agent.cli.cluster.session import NoCluster, ask
from control.kube.client import KubeClient
from control.kube.errors import AccessError


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that installation and upgrade have in common, given as `order` and the rest."""

    @click.option("--profile", type=click.Choice(["demo", "default", "ha"]), help="Size of it.")
    @click.option("--set", "words", multiple=True, metavar="NAME=VALUE", help="A chart's setting.")
    @click.option(
        "-f", "--values", "files", multiple=True, type=click.Path(path_type=Path), help="As Helm's."
    )
    @click.option("--reset", is_flag=True, help="Forget the settings of before.")
    @click.option("--dry-run", is_flag=True, help="Ask the cluster, change nothing.")
    @click.option("-o", "--output", type=click.Choice(["text", "yaml"]), default="text")
    @click.option("--force-conflicts", is_flag=True, help="Take over others' fields.")
    @click.option("--skip-checks", is_flag=True, help="Leave out `tulle check --pre`.")
    @click.option("--wait/--no-wait", default=True, help="Until all parts are ready (default).")
    @patience("Longest wait for the parts.")
    @cluster_options
    @click.pass_context
    @functools.wraps(command)
    def wrapped(
        ctx: click.Context,
        /,
        profile: str | None,
        words: tuple[str, ...],
        files: tuple[Path, ...],
        reset: bool,
        dry_run: bool,
        output: str,
        force_conflicts: bool,
        skip_checks: bool,
        wait: bool,
        timeout: float,
        **more: Any,
    ) -> None:
        order = Order(
            own=_own(profile, words, files),
            is_reset=reset,
            is_dry_run=dry_run,
            takes_over=force_conflicts,
            skips_checks=skip_checks,
            **command(**more),
        )
        _carry_out(of_cluster(ctx), order, output == "yaml", timeout if wait else 0.0)

    return wrapped


@click.command()
@_options
def install() -> dict[str, Any]:
    """Install Tulle into a cluster, and wait until it runs.

    Settings are the chart's (--set cni.binDir=/x, -f values.yaml). Repeating it is safe, and keeps
    the settings of before. --dry-run -o yaml prints the manifests, without a cluster, too.

    Example: tulle install --profile demo --set image.repository=registry.example/tulle
    """
    return {}


@click.command()
@click.option("--allow-downgrade", is_flag=True, help="Go back to this older version.")
@_options
def upgrade(allow_downgrade: bool) -> dict[str, Any]:
    """Bring an installed Tulle to the version of this command. Traffic goes on meanwhile.

    Settings of before are kept; objects that are no longer wanted are removed.

    Example: tulle upgrade --set ztunnel.workers=2
    """
    return {"is_upgrade": True, "downgrades": allow_downgrade}


def _own(profile: str | None, words: tuple[str, ...], files: tuple[Path, ...]) -> Settings:
    own: Settings = {}
    for path in files:
        own = settings.merged(own, settings.read(path))
    if profile:
        own["profile"] = profile
    return settings.given(release.load(), words, own)


def _carry_out(choice: ClusterChoice, order: Order, prints: bool, wait_s: float) -> None:
    async def act(client: KubeClient) -> tuple[Plan, list[Applied]]:
        made = await steps.plan(client, order, _say)
        if prints and order.is_dry_run:
            return made, []
        outcomes = await steps.carry_out(client, made, order, _say)
        if wait_s and not order.is_dry_run:
            await rollout.wait(client, wait_s, _say)
        return made, outcomes

    try:
        made, outcomes = ask(choice, act)
    except (NoCluster, AccessError) as exc:
        if not (prints and order.is_dry_run):
            raise
        _say(f"warning: made without a cluster's word: {exc}")
        made, outcomes = steps.offline(release.load(), order.own), []
    if prints:
        click.echo("---\n".join(f"{to_yaml(each)}\n" for each in in_order(made.objects)), nl=False)
    elif not order.is_dry_run:
        _say(_end(made, outcomes, is_ready=wait_s > 0))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _end(made: Plan, outcomes: list[Applied], *, is_ready: bool) -> str:
    changed = sum(each.done != "unchanged" for each in outcomes)
    done = "runs" if is_ready else "is on its way"
    return (
        f"Tulle {made.chart.version} {done} ({changed} of {len(outcomes)} objects changed). "
        "Next: tulle namespace add default, or "
        "kubectl label namespace default istio.io/dataplane-mode=ambient"
    )
