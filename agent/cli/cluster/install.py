"""Installation and upgrade: decided on facts and the record of before, then applied."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.cli.chart import release, settings
from agent.cli.chart.release import NAMESPACE, SERVICE, Chart
from agent.cli.chart.settings import Settings
from agent.cli.cluster import disruption, platform, preflight, record
from agent.cli.cluster import facts as cluster_facts
from agent.cli.cluster.facts import MANAGED_BY, VERSION, ClusterFacts
from agent.cli.cluster.objects import Applied, Applier, Kinds, Object, ObjectRef, ref_of, remove
from agent.cli.cluster.record import Record
from agent.cli.cluster.session import ClusterError
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import ACCESS_REVIEWS

DEFINITION = "CustomResourceDefinition"
KEPT = frozenset({"Namespace", DEFINITION})  # never removed by an upgrade
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """`own`: settings of this command line. `is_reset`: forget those of before."""

    own: Settings = field(default_factory=dict)
    is_upgrade: bool = False
    is_reset: bool = False
    is_dry_run: bool = False
    takes_over: bool = False
    skips_checks: bool = False
    downgrades: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`own`: the settings that the user has set, now or before."""

    chart: Chart
    own: Settings
    objects: list[Object]
    before: Record | None = None

    @property
    def refs(self) -> set[ObjectRef]:
        return {ref_of(each) for each in self.objects}

    @property
    def groups(self) -> set[str]:
        """Groups of the API that the plan itself brings."""
        definitions = [each for each in self.objects if each["kind"] == DEFINITION]
        return {each["spec"]["group"] for each in definitions}


def offline(chart: Chart, own: Settings) -> Plan:
    """The plan without a cluster to ask: a plain platform, and our own definitions."""
    return Plan(chart, own, rendered(chart, own))


def rendered(chart: Chart, own: Settings, facts: ClusterFacts | None = None) -> list[Object]:
    """The objects of the settings, on the platform that the cluster seems to be of."""
    found = platform.detect(facts) if facts is not None and "platform" not in own else {}
    base = settings.merged(found, {"namespace": {"create": True}})
    whole = settings.whole(chart, settings.merged(base, own))

    def lookup(_api: str, kind: str, _namespace: str, name: str) -> Object:
        meta = facts.find(kind, name) if facts else None
        return {"metadata": {"name": name, "labels": meta.labels or {}}} if meta else {}

    return chart.objects(whole, lookup)


async def plan(client: KubeClient, order: Order, told: Told) -> Plan:
    """Everything that may stop an installation is found here, before anything is written."""
    chart = release.load()
    facts = await cluster_facts.read(client)
    before = await record.read(client)
    expect(facts, before, order, chart.version)
    if not order.skips_checks:
        _expect_sound(preflight.checks(facts, await rights(client)), told)
    kept = before.settings if before and not order.is_reset else {}
    own = settings.merged(kept, order.own)
    if "platform" not in own:
        told(f"platform: {platform.detect(facts)['platform']} (--set platform=… chooses another)")
    made = Plan(chart, own, rendered(chart, own, facts), before)
    if before is not None:
        there, wanted = (settings.whole(chart, each) for each in (before.settings, own))
        for said in disruption.warnings(there, wanted):
            told(f"warning: {said}")
    await _expect_accepted(client, made, order)
    return made


async def _expect_accepted(client: KubeClient, made: Plan, order: Order) -> None:
    """Kinds that are not served, and, over an installation, fields of others and refusals."""
    kinds = Kinds(client)
    for each in made.objects:
        if each["apiVersion"].partition("/")[0] not in made.groups:
            await kinds.get(each["apiVersion"], each["kind"])
    if made.before is not None and not order.is_dry_run:
        applier = Applier(client, force=order.takes_over, dry_run=True)
        await applier.apply(made.objects, lambda _outcome: None)


def expect(facts: ClusterFacts, before: Record | None, order: Order, version: str) -> None:
    """Refuse to write over somebody else's installation, or over a newer one."""
    control = facts.control
    if control is not None and control.namespace != NAMESPACE:
        raise ClusterError(
            f"Tulle is installed in namespace {control.namespace}; this command installs "
            f"into {NAMESPACE}, and a cluster has one Tulle"
        )
    manager = control.label(MANAGED_BY) if control else ""
    if manager == "Helm":
        word = "upgrade" if order.is_upgrade else "upgrade --install"
        raise ClusterError(f"Tulle was installed by Helm: use helm {word}, or uninstall it first")
    if control is not None and before is None and manager != SERVICE:
        raise ClusterError(
            "Tulle was installed from its manifests (kubectl, kustomize or GitOps): change it "
            "there, or delete these objects first"
        )
    there = before.version if before else control.label(VERSION) if control else ""
    if order.is_upgrade and not there:
        raise ClusterError("Tulle is not installed: tulle install")
    if not there or there == version:
        return
    if not order.is_upgrade:
        raise ClusterError(f"Tulle {there} is installed: tulle upgrade makes it {version}")
    if numbers(there) > numbers(version) and not order.downgrades:
        raise ClusterError(
            f"Tulle {there} is installed, which is newer than {version}: use its own `tulle`, "
            "or --allow-downgrade"
        )


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version)[:3])


def _expect_sound(checks: list[dict[str, Any]], told: Told) -> None:
    failed = []
    for each in checks:
        if each["result"] == "ok":
            continue
        said = f"{each['code']}: {each['error']} ({each['hint']})"
        if each["result"] == "error":
            failed.append(said)
        else:
            told(f"warning: {said}")
    if failed:
        lines = "\n  ".join(failed)
        raise ClusterError(
            f"nothing was installed:\n  {lines}\n--skip-checks installs all the same"
        )


async def rights(client: KubeClient) -> list[str]:
    """The rights for an installation that this user lacks, in words."""
    missing = []
    for each in preflight.NEEDED:
        answer: dict[str, Any] | ApiError
        try:
            review = preflight.review(*each)
            answer = await client.create(ACCESS_REVIEWS.path(), review, dict[str, Any])
        except ApiError as exc:
            answer = exc
        if said := preflight.refused(each, answer):
            missing.append(said)
    return missing


async def carry_out(client: KubeClient, made: Plan, order: Order, told: Told) -> list[Applied]:
    """Apply the plan. The record is written before the objects, so that a broken installation can
    be repeated or removed."""

    def tell(outcome: Applied) -> None:
        if order.is_dry_run:
            told(f"{outcome.done} {outcome.ref} (dry run)")
        elif outcome.done != "unchanged":
            told(f"{outcome.done} {outcome.ref}")

    applier = Applier(client, force=order.takes_over, dry_run=order.is_dry_run)
    first = [each for each in made.objects if each["kind"] == "Namespace"]
    rest = [each for each in made.objects if each["kind"] != "Namespace"]
    known = set(made.before.refs) if made.before else set()
    outcomes = await applier.apply(first, tell)
    if order.is_dry_run:
        return outcomes + await applier.apply(rest, tell)
    version = made.chart.version
    await _write(applier, Record(version, made.own, tuple(known | made.refs)))
    outcomes += await applier.apply(rest, tell)
    gone = [each for each in known - made.refs if each.kind not in KEPT]
    outcomes += await remove(client, gone, tell)
    kept = {each for each in known - made.refs if each.kind in KEPT}
    await _write(applier, Record(version, made.own, tuple(made.refs | kept)))
    return outcomes


async def _write(applier: Applier, value: Record) -> None:
    await applier.apply([value.as_object()], lambda _outcome: None)
