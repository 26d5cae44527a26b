"""The chart as plain manifests: a kustomize base, and an overlay for each platform.

Helm renders every platform once; the base is the default profile on the generic platform, and an
overlay has the difference as JSON patches. `kubectl kustomize` of an overlay is then the chart with
`platform` set, which tests compare.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from daemonset.tools.crds import FOLDER as CRDS
from daemonset.tools.crds import dump

ROOT = Path(__file__).parents[2]
CHART = ROOT / "daemonset/chart"
MANIFESTS = ROOT / "daemonset/manifests"
NAMESPACE = "tulle-system"
BASE = "generic"
PLATFORMS = sorted(path.stem for path in (CHART / "platforms").glob("*.yaml"))
HEAD = "# Made from the chart by `make manifests`.\n"
Object = dict[str, Any]
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm(*arguments: str, program: str = "helm", has_hooks: bool = False) -> str:
    """Output of the chart; CalledProcessError with Helm's words if it does not render.

    Hooks are for Helm: kubectl would run them when it puts them there.
    """
    command = [program, "template", "tulle", str(CHART), "--namespace", NAMESPACE]
    command += ["--kube-version", "1.36.0", "--set", "namespace.create=true", *arguments]
    command += [] if has_hooks else ["--no-hooks"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def objects_of(text: str) -> list[Object]:
    return [each for each in yaml.load_all(text, Loader=LOADER) if each]


def name_of(each: Object) -> tuple[str, str, str, str]:
    meta = each["metadata"]
    return each["apiVersion"], each["kind"], meta.get("namespace", ""), meta["name"]


def without_helm(each: Object) -> Object:
    """The object as kustomize's users apply it: no trace of a release."""
    labels = each["metadata"].get("labels", {})
    if labels.get("app.kubernetes.io/managed-by") == "Helm":
        del labels["app.kubernetes.io/managed-by"]
    template = each.get("spec", {}).get("template")
    if template:
        template["metadata"]["labels"].pop("app.kubernetes.io/managed-by", None)
    return each


def rendered(platform: str, program: str = "helm", *arguments: str) -> list[Object]:
    """Objects of a platform, without Istio's kinds and the namespace of their root."""
    flags = ("--set", f"platform={platform}", "--set", "crds.install=never", *arguments)
    return [without_helm(each) for each in objects_of(helm(*flags, program=program))]


def root_namespace(program: str = "helm") -> Object:
    """The namespace of the mesh's own policies, which comes with the definitions."""
    whole = map(without_helm, objects_of(helm(program=program)))
    return next(
        each
        for each in whole
        if name_of(each)[1] == "Namespace" and "annotations" in each["metadata"]
    )


def difference(old: Any, new: Any, path: str = "") -> Iterator[Object]:
    """JSON patch from one value to another; lists of other lengths are replaced as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            place = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if key not in new:
                yield {"op": "remove", "path": place}
            elif key not in old:
                yield {"op": "add", "path": place, "value": new[key]}
            else:
                yield from difference(old[key], new[key], place)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from difference(left, right, f"{path}/{number}")
    elif old != new:
        yield {"op": "replace", "path": path, "value": new}


def overlay(base: list[Object], wanted: list[Object]) -> dict[str, str]:
    """Files of an overlay by name."""
    before = {name_of(each): each for each in base}
    after = {name_of(each): each for each in wanted}
    patches = []
    for name, each in before.items():
        _, kind, namespace, own = name
        target = {"kind": kind, "name": own} | ({"namespace": namespace} if namespace else {})
        if name not in after:
            gone = {"$patch": "delete", "apiVersion": each["apiVersion"], "kind": kind}
            gone["metadata"] = each["metadata"] | {}
            patches.append({"target": target, "patch": dump(gone)})
            continue
        steps = list(difference(each, after[name]))
        if steps:
            patches.append({"target": target, "patch": dump(steps)})
    more = [each for name, each in after.items() if name not in before]
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    resources = ["../../crds", "../../base"] + (["more.yaml"] if more else [])
    files = {"kustomization.yaml": HEAD + dump(head | {"resources": resources, "patches": patches})}
    if more:
        files["more.yaml"] = HEAD + "---\n".join(dump(each) for each in more)
    return files


def listing(resources: list[str]) -> str:
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return HEAD + dump(head | {"resources": resources})


def files(program: str = "helm") -> dict[Path, str]:
    """All files of daemonset/manifests."""
    base = rendered(BASE, program)
    names = sorted(path.name for path in CRDS.glob("*.yaml"))
    root = "root-namespace.yaml"
    found = {
        MANIFESTS / "base/tulle.yaml": HEAD + "---\n".join(dump(each) for each in base),
        MANIFESTS / "base/kustomization.yaml": listing(["tulle.yaml"]),
        MANIFESTS / "crds/kustomization.yaml": listing([*names, root]),
        MANIFESTS / "crds" / root: HEAD + dump(root_namespace(program)),
    }
    for name in names:
        found[MANIFESTS / "crds" / name] = (CRDS / name).read_text()
    for platform in PLATFORMS:
        for name, text in overlay(base, rendered(platform, program)).items():
            found[MANIFESTS / "overlays" / platform / name] = text
    return found


def built(folder: Path, program: str = "kubectl") -> list[Object]:
    """Objects that kustomize builds of a folder."""
    command = [program, "kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return objects_of(done.stdout)


def as_set(objects: list[Object]) -> set[str]:
    return {json.dumps(each, sort_keys=True) for each in objects}
