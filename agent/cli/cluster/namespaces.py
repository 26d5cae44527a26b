"""Namespaces of a cluster into the mesh and out of it, by their label."""

from __future__ import annotations

from typing import Any

from agent.cli.chart.release import NAMESPACE
from agent.cli.cluster import facts, hands
from agent.cli.cluster.objects import get_or_none
from agent.cli.cluster.session import MANAGER, ClusterError
from agent.cli.views.namespaces import MODE_LABELS
from control.kit.choices import absent
from control.kit.errors import ConfigError
from control.kube.client import KubeClient
from control.kube.resources import NAMESPACES

Object = dict[str, Any]
# A label on these does not count: the cluster lives there, or the mesh does.
NEVER = frozenset({"kube-system", "istio-system", NAMESPACE})


async def change(client: KubeClient, name: str, label: str) -> tuple[bool, list[str]]:
    """(something was changed, remarks). `label` as kubectl has it: key=value, or key-.

    Leaving takes every label away that means the mesh.
    """
    key, _, value = label.partition("=")
    is_joining = bool(value)
    if is_joining and name in NEVER:
        raise ClusterError(f"{name} is a system namespace: a label on it does not count")
    path = NAMESPACES.path(name=name)
    found = await get_or_none(client, path)
    if found is None:
        listed = await facts.list_all(client, NAMESPACES.path(), facts.Named)
        raise ConfigError(absent("namespace", name, (each.metadata.name for each in listed)))
    labels = found["metadata"].get("labels") or {}
    wanted: dict[str, str | None] = {key: value} if is_joining else dict.fromkeys(MODE_LABELS)
    if is_joining:  # `none` under either name would win
        wanted |= {each: None for each in MODE_LABELS if labels.get(each) == "none"}
    wanted = {each: to for each, to in wanted.items() if labels.get(each) != to}
    if is_joining and not wanted.keys() - {key} and _is_in(labels):
        wanted = {}
    if not wanted:
        return False, []
    meta = {"uid": found["metadata"]["uid"], "labels": wanted}
    await client.merge(path, {"metadata": meta}, Object, {"fieldManager": MANAGER})
    owner = hands.owner_of(found)
    remark = f"warning: {name} belongs to {owner}: change the label there, too, or it comes back"
    return True, [remark] if owner and owner != MANAGER else []


def _is_in(labels: dict[str, str]) -> bool:
    values = {labels.get(each) for each in MODE_LABELS}
    return "ambient" in values and "none" not in values
