"""The lab and the pod that a command line means."""

from __future__ import annotations

import time
from pathlib import Path

import click

from agent.lab.lab import Lab


def lab_of(ctx: click.Context) -> Lab:
    """The lab below --run-dir, silent."""
    return Lab(Path(ctx.obj))


def reporting_lab_of(ctx: click.Context) -> Lab:
    """The lab below --run-dir; it reports its progress on standard error."""
    started = time.monotonic()

    def progress(text: str) -> None:
        click.echo(f"[{time.monotonic() - started:5.1f} s] {text}", err=True)

    return Lab(Path(ctx.obj), progress)


def split_pod(namespace: str, name: str) -> tuple[str, str]:
    """(namespace, pod): NAMESPACE/POD means the same as -n NAMESPACE POD."""
    head, slash, tail = name.partition("/")
    return (head, tail) if slash else (namespace, name)
