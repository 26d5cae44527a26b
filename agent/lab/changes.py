"""Changes to a running lab: labels, objects, pods, and the mesh's own processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.cli import labels
from agent.cli.manifests import CLUSTER_KINDS, Ref, TextDocument, split
from agent.lab import objects, process, topology
from agent.lab.daemons import Daemons
from agent.lab.lab import Lab, place, plan_pod
from agent.lab.manifests import Manifests
from agent.lab.pods import LabPods
from agent.lab.spec import PodSpec
from agent.lab.state import LabState, PodRecord
from control.kit.errors import ConfigError, MeshError

ZTUNNEL_GRACE_S = 15.0  # it lets its streams finish first
OTHER_GRACE_S = 5.0
ADDED_FILE = "applied.yaml"
UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Labelled:
    """An object after an edit of its labels: `absent` are those to remove that it did not have."""

    document: TextDocument
    changed: bool
    absent: tuple[str, ...]


def label(lab: Lab, kind: str, namespace: str, name: str, changes: Iterable[str]) -> Labelled:
    """Edit labels of an object in the working copy; ConfigError if it is not there."""
    wanted = [labels.parse_change(text) for text in changes]
    ref = Ref(kind, "" if kind in CLUSTER_KINDS else namespace, name)
    with lab.store.exclusive():
        state, manifests = lab.store.load(), Manifests.load(lab.manifests_folder)
        found = manifests.find(ref)
        if found is None:
            raise ConfigError(f"no {ref} in {lab.manifests_folder}")
        file, document = found
        had, text = document.value["metadata"].get("labels") or {}, document.text
        absent = [each.key for each in wanted if each.value is None and each.key not in had]
        for change in wanted:
            document.text = labels.edit(document.text, change)
        document.value = split(document.text, file)[0].value
        manifests.save(lab.manifests_folder, {file})
        lab.refresh(state, manifests)
    return Labelled(document, document.text != text, tuple(absent))


def apply(lab: Lab, text: str, where: str) -> list[str]:
    """Add or replace the objects in `text` and start new pods; one line about each object."""
    documents = split(text, where)
    if not documents:
        raise ConfigError(f"{where}: no objects in it")
    with lab.store.exclusive():
        state, manifests = lab.store.load(), Manifests.load(lab.manifests_folder)
        new_file = Path(where).name if where.endswith((".yaml", ".yml")) else ADDED_FILE
        lines, starting = [], []
        for document in documents:
            if document.value["kind"] == "Pod":
                _spec_of(state, document, where)  # before anything is changed
        for document in documents:
            known = manifests.find(document.ref)
            if document.value["kind"] == "Pod":
                record = _apply_pod(lab, state, manifests, document, (where, new_file))
                starting += [record] if record else []
            elif known is not None and known[1].value == document.value:
                lines.append(f"{document.ref} {UNCHANGED}")
                continue
            else:
                _apply_other(lab, manifests, document, new_file)
            lines.append(f"{document.ref} {'configured' if known else 'created'}")
        lab.refresh(state, manifests)
        lab.launch(state, manifests, starting)
    return lines


def _apply_other(lab: Lab, manifests: Manifests, document: TextDocument, new_file: str) -> None:
    value, known = document.value, manifests.find(document.ref)
    if value["kind"] == "Service" and known is not None and not objects.cluster_ips(value):
        value = _with_old_addresses(value, known[1].value)
    text = document.text if value is document.value else ""
    changed = {manifests.put(value, new_file, text)}
    changed |= objects.allocate_services(manifests)
    manifests.save(lab.manifests_folder, changed)


def _with_old_addresses(value: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    if objects.is_headless(value) or not objects.cluster_ips(old):
        return value
    merged = deepcopy(value)
    for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if key in old["spec"]:
            merged.setdefault("spec", {}).setdefault(key, old["spec"][key])
    return merged


def _spec_of(state: LabState, document: TextDocument, where: str) -> PodSpec:
    """The pod that a manifest means; ConfigError if it states no node for a new one."""
    ref, wanted = document.ref, document.value
    old = state.pods.get(f"{ref.namespace}/{ref.name}")
    annotations = wanted["metadata"].get("annotations") or {}
    if old is not None and objects.ANNOTATION_NODE not in annotations:
        return old.spec
    nodes = [node.name for node in state.nodes]
    return objects.spec_from_annotations(wanted, nodes, Path(where).parent)


def _apply_pod(
    lab: Lab, state: LabState, manifests: Manifests, document: TextDocument, files: tuple[str, str]
) -> PodRecord | None:
    """Change a pod; the new one to start, if any.

    A pod keeps running when only its metadata changes; any other change replaces it.
    """
    where, new_file = files
    ref, wanted = document.ref, document.value
    key = f"{ref.namespace}/{ref.name}"
    old, known = state.pods.get(key), manifests.find(ref)
    spec = _spec_of(state, document, where)
    if old is not None and known is not None and spec == old.spec:
        merged = objects.with_metadata(known[1].value, wanted)
        if merged is not None:
            manifests.save(lab.manifests_folder, {manifests.put(merged, new_file)})
            return None
    if old is not None:
        _remove_pod(lab, state, manifests, ref)
    record = plan_pod(state, spec)
    state.pods[key] = record
    lab.store.save(state)
    manifests.put(wanted, new_file)
    node = state.node(spec.node)
    topology.build_pod(record.netns, node, record.link, record.address)
    manifests.save(lab.manifests_folder, {place(state, manifests, record)})
    return record


def delete_file(lab: Lab, text: str, where: str) -> tuple[list[str], list[str]]:
    """Lines about the deleted objects, and lines about those that were not there."""
    return _delete(lab, [document.ref for document in split(text, where)])


def delete(lab: Lab, kind: str, namespace: str, name: str) -> list[str]:
    """Delete an object by kind (any case, or its plural) and name; MeshError: no such object."""
    lab.store.load()  # ConfigError when no lab is up
    manifests = Manifests.load(lab.manifests_folder)
    for _, document in manifests.documents():
        ref = document.ref
        right_name = ref.name == name and ref.namespace in ("", namespace)
        if right_name and kind.lower() in _spellings(ref.kind):
            return _delete(lab, [ref])[0]
    raise MeshError(f"no {kind} {namespace}/{name}")


def _spellings(kind: str) -> tuple[str, str]:
    one = kind.lower()
    if one.endswith("y"):
        return one, one[:-1] + "ies"
    return one, one + ("es" if one.endswith("s") else "s")


def _delete(lab: Lab, refs: Iterable[Ref]) -> tuple[list[str], list[str]]:
    lines, missing = [], []
    with lab.store.exclusive():
        state, manifests = lab.store.load(), Manifests.load(lab.manifests_folder)
        for ref in _with_contents(manifests, refs):
            if ref.kind == "Pod" and f"{ref.namespace}/{ref.name}" in state.pods:
                _remove_pod(lab, state, manifests, ref)
            elif (file := manifests.remove(ref)) is not None:
                manifests.save(lab.manifests_folder, {file})
            else:
                missing.append(f"no {ref}")
                continue
            lines.append(f"{ref} deleted")
        lab.refresh(state, manifests)
    return lines, missing


def _with_contents(manifests: Manifests, refs: Iterable[Ref]) -> list[Ref]:
    """The objects to delete: a namespace comes after all that is in it."""
    found: list[Ref] = []
    for ref in refs:
        if ref.kind == "Namespace":
            inner = [item.ref for _, item in manifests.documents()]
            found += [item for item in inner if item.namespace == ref.name]
        found.append(ref)
    return list(dict.fromkeys(found))


def _remove_pod(lab: Lab, state: LabState, manifests: Manifests, ref: Ref) -> None:
    """Take a pod out of its services, stop it, and have the agent forget it."""
    key = f"{ref.namespace}/{ref.name}"
    record, pods = state.pods[key], LabPods(lab.run_dir, state)
    found = manifests.find(ref)
    if found is not None:  # no endpoint any more while it ends, as in a cluster
        found[1].replace(objects.with_ready(found[1].value, False))
        manifests.save(lab.manifests_folder, {found[0]})
    pods.stop([record])
    file = manifests.remove(ref)
    if file is not None:
        manifests.save(lab.manifests_folder, {file})
    pods.remove(record)
    del state.pods[key]
    lab.store.save(state)


def stop(lab: Lab, what: str, node: str | None) -> list[str]:
    """Stop processes; their names, as with `kill` and `restart`."""
    with lab.store.exclusive():
        state = lab.store.load()
        grace_s = ZTUNNEL_GRACE_S if what == "ztunnel" else OTHER_GRACE_S
        names = process_names(state, what, node)
        process.stop([state.processes[name] for name in names], grace_s)
    return names


def kill(lab: Lab, what: str, node: str | None) -> list[str]:
    """Kill a process and its workers at once, as in a crash."""
    with lab.store.exclusive():
        state = lab.store.load()
        names = process_names(state, what, node)
        for name in names:
            cgroup = process.cgroup_of(state.processes[name])
            process.send(state.processes[name], signal.SIGKILL)
            if cgroup is not None:
                process.kill_members(cgroup)
            process.wait_gone([state.processes[name]], OTHER_GRACE_S)
    return names


def restart(lab: Lab, what: str, node: str | None) -> list[str]:
    """Start processes and wait until they are up. Those that run are stopped first, but a ztunnel
    of ours last: it drains while the new one serves."""
    if what == "ztunnel":
        return _replace_ztunnels(lab, node)
    names = stop(lab, what, node)
    with lab.store.exclusive():
        state = lab.store.load()
        daemons = Daemons(lab.run_dir, state, lab.progress)
        for name in names:
            place_of = state.node(name.partition("-")[2]) if what != "control" else None
            if place_of is None:
                daemons.start_control()
            else:
                daemons.start_agent(place_of)
        lab.store.save(state)
        for name in names:
            if what == "control":
                daemons.wait_control()
            else:
                daemons.wait_agent(name.partition("-")[2])
    return names


def _replace_ztunnels(lab: Lab, node: str | None) -> list[str]:
    with lab.store.exclusive():
        state = lab.store.load()
        daemons = Daemons(lab.run_dir, state, lab.progress)
        names = process_names(state, "ztunnel", node)
        old = {name: state.processes[name] for name in names}
        places = {name: state.node(name.partition("-")[2]) for name in names}
        for name, place_of in places.items():
            if place_of.ztunnel:  # two of another make would share what comes
                process.stop([old[name]], ZTUNNEL_GRACE_S)
            daemons.start_ztunnel(place_of)
        lab.store.save(state)
        for name, place_of in places.items():
            if process.alive(old[name]):
                daemons.wait_newest(place_of)
                process.send(old[name], signal.SIGTERM)
            else:
                daemons.wait_ztunnel(place_of)
    return names


def process_names(state: LabState, what: str, node: str | None) -> list[str]:
    """Names of the processes that `what` and `node` mean; ConfigError if there are none."""
    if what == "control":
        if node:
            raise ConfigError(f"the control plane is of no node: leave {node} out")
        names = ["control"]
    else:
        nodes = [state.node(node)] if node else state.nodes
        names = [f"{what}-{item.name}" for item in nodes]
    missing = [name for name in names if name not in state.processes]
    if missing:
        raise ConfigError(f"this lab has no {', '.join(missing)} (was it brought up --unmeshed?)")
    return names
