"""Changes of settings that a running mesh feels: told before they are made. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from agent.cli.chart.settings import Settings


def warnings(before: Settings, after: Settings) -> Iterator[str]:
    """`before` and `after` are whole settings."""
    old, new = before["mesh"], after["mesh"]
    if old["trustDomain"] != new["trustDomain"]:
        yield (
            f"mesh.trustDomain: every identity gets another name ({old['trustDomain']} → "
            f"{new['trustDomain']}): pods refuse each other until all control planes and ztunnels "
            "are replaced"
        )
    if old["rootNamespace"] != new["rootNamespace"]:
        yield (
            f"mesh.rootNamespace: policies in {old['rootNamespace']} are no longer for the whole "
            f"mesh, those in {new['rootNamespace']} are"
        )
    if before["cni"]["enabled"] and not after["cni"]["enabled"]:
        yield "cni.enabled: a pod's first processes run before it is captured"
