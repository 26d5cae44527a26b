"""The record that an installation leaves in the cluster: its settings, version and objects. Upgrade
goes on from it, and removes what is no longer wanted; uninstall knows by it what was put there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from agent.cli.chart.functions import from_yaml, to_yaml
from agent.cli.chart.release import NAMESPACE, SERVICE
from agent.cli.chart.settings import Settings
from agent.cli.cluster.facts import MANAGED_BY, NAME, PART_OF
from agent.cli.cluster.objects import Object, ObjectRef, get_or_none
from agent.cli.cluster.session import ClusterError
from control.kube.client import KubeClient
from control.kube.resources import CONFIG_MAPS

RECORD = "tulle-installation"
PATH = CONFIG_MAPS.path(NAMESPACE, RECORD)


@dataclass(frozen=True, slots=True)
class Record:
    """`settings`: only those that the user set."""

    version: str
    settings: Settings = field(default_factory=dict)
    refs: tuple[ObjectRef, ...] = ()

    def as_object(self) -> Object:
        labels = {NAME: RECORD, PART_OF: "tulle", MANAGED_BY: SERVICE}
        rows = [each.as_json() for each in sorted(self.refs)]
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": RECORD, "namespace": NAMESPACE, "labels": labels},
            "data": {
                "version": self.version,
                "settings.yaml": to_yaml(self.settings) + "\n",
                "objects.json": json.dumps(rows),
            },
        }


def parse(value: Object) -> Record:
    """Raises ClusterError for a record that somebody has damaged."""
    data: dict[str, Any] = value.get("data") or {}
    try:
        settings = from_yaml(data["settings.yaml"])
        rows = json.loads(data["objects.json"])
        refs = tuple(ObjectRef(*map(str, row)) for row in rows)
        if not isinstance(settings, dict):
            raise ValueError("its settings are no mapping")
        return Record(str(data["version"]), settings, refs)
    except (KeyError, TypeError, ValueError) as exc:
        raise ClusterError(
            f"ConfigMap {NAMESPACE}/{RECORD} is damaged ({exc}): delete it, and give all settings "
            "to `tulle install` again"
        ) from exc


async def read(client: KubeClient) -> Record | None:
    found = await get_or_none(client, PATH)
    return None if found is None else parse(found)
