"""`tulle-control check`: what is wrong with a folder of manifests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from control.kit.clock import SystemClock
from control.kit.command import PlainCommand
from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.settings import Settings
from control.server.flags import DRY_RUN, FOLDER, ROOT_NAMESPACE, option, output
from control.server.gateway.gateways import Gateways
from control.server.sources.directory import DirectorySource
from control.server.sources.problem import Problem

_manifests = option("--manifests", required=True, **FOLDER)


def problems_of(
    path: Path, settings: Settings
) -> tuple[tuple[Problem, ...], tuple[Problem, ...], int]:
    """Problems of a folder, notes on objects that are not enforced as they are written, and the
    number of objects."""
    snapshot = DirectorySource(path, SystemClock()).read()
    changed = snapshot.objects.by_key()
    mesh, gateways = Mesh(settings, KnownCaptures(frozenset())), Gateways(settings)
    gateways.apply(changed, mesh.apply(changed))
    return snapshot.problems, (*mesh.notes, *gateways.notes), len(snapshot.objects)


@click.command(cls=PlainCommand)
@_manifests
@ROOT_NAMESPACE
@DRY_RUN
def check(manifests: Path, root_namespace: str, dry_run_policies: bool) -> None:
    """Validate a folder of manifests.

    Exits 0 without problems, 1 with some, 2 when the folder cannot be read.
    Each line is file:line: object: what is wrong (reason).
    """
    if not manifests.is_dir() or not os.access(manifests, os.R_OK | os.X_OK):
        click.echo(f"error: {manifests}: not a folder that can be read", err=True)
        sys.exit(2)
    settings = Settings(root_namespace=root_namespace, dry_run_policies=dry_run_policies)
    problems, notes, objects = problems_of(manifests, settings)
    with output():
        for note in notes:
            click.echo(f"note: {note}", err=True)
        for problem in problems:
            click.echo(str(problem))
        found = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        click.echo(f"{found}, {objects} object{'s' if objects != 1 else ''}", err=True)
    sys.exit(1 if problems else 0)
