"""A mesh behind pods/exec: `tulle dump` in the pods of the small API server answers pages of the
example mesh."""

from __future__ import annotations

import json
from typing import Any

from agent.cli.mesh import MeshDump
from tests.support.kube.commands import Command, Result
from tests.unit.agent.cli.mesh_example import NOW

Json = dict[str, Any]


class MeshInPods:
    """`nodes[name]` and `control`: pages as in a dump. `silent`: pods whose command fails."""

    def __init__(self, mesh: MeshDump | None = None) -> None:
        self.nodes: dict[str, Json] = dict(mesh.nodes) if mesh else {}
        self.control: Json = dict(mesh.control) if mesh else {"status": {}}
        self.asked: list[Command] = []
        self.silent: set[str] = set()

    def __call__(self, command: Command) -> Result:
        self.asked.append(command)
        if command.pod in self.silent:
            return Result(2, b"", b"error: no socket here\n")
        options = [word.partition("=") for word in command.words]
        given = {name: value for name, _, value in options}
        parts = {value for name, _, value in options if name == "--part"}
        node = given.get("--node", "")
        pages = self.nodes.get(node, {})
        return Result(
            0,
            json.dumps(
                {
                    "dumpVersion": 1,
                    "takenAt": NOW.isoformat(),
                    "nodes": {node: {k: v for k, v in pages.items() if k in parts}} if node else {},
                    "control": self.control if "control" in parts else {},
                    "labels": {},
                    "errors": [],
                    "away": {},
                }
            ).encode(),
        )
