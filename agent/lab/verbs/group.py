"""`tulle lab`: its commands. Each reads arguments and shows results; agent.lab does the work."""

from __future__ import annotations

import click

from agent.lab.verbs import life, objects, pods, processes
from control.kit.command import PlainGroup


@click.group(cls=PlainGroup)
def lab() -> None:
    """Run nodes and pods as network namespaces on this host (as root).

    Example: tulle lab up DIR; tulle lab exec -n shop shopper -- curl http://ratings/
    """


for command in (
    life.up,
    life.down,
    pods.exec_command,
    pods.status,
    objects.label,
    objects.apply,
    objects.delete,
    pods.logs,
    processes.restart,
    processes.stop,
    processes.kill,
):
    lab.add_command(command)
