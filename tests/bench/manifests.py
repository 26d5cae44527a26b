"""The lab and the objects of the benchmark, as text. Pure but for `write_lab`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

HTTP, BULK, ECHO = 8080, 5201, 7000
LAB = "tb-bench"
NODE_A, NODE_B = "tb-a", "tb-b"
MESH, PLAIN = "mesh", "plain"
# The same pods once more, on two nodes with a ztunnel of another make.
FOREIGN = "foreign"
NODE_C, NODE_D = "tb-c", "tb-d"
POLICY_FILE, PUSH_FILE = "bench-policy.yaml", "bench-push-{}.yaml"
RULES_PER_POLICY = 500  # the schema's bound is 512
PODS_PER_FILE = 2000  # well below the control plane's bound of a file
# Where the pushed pods would be. No route leads there, and nobody talks to them.
_PUSHED_NET = "10.{}.{}.{}"


def objects(*, foreign: bool = False) -> list[dict[str, Any]]:
    meshes = (MESH, FOREIGN) if foreign else (MESH,)
    made = [namespace("istio-system"), namespace(PLAIN)]
    made += [namespace(where, enrolled=True) for where in meshes]
    for where in (*meshes, PLAIN):
        for name in ("client", "near", "server"):
            made += [account(where, name), pod(where, name)]
    for where in meshes:
        made += [strict(where), allow("few", [[f"{principal(where, 'client')}"]], where)]
    return made


def namespace(name: str, *, enrolled: bool = False) -> dict[str, Any]:
    labels = {"istio.io/dataplane-mode": "ambient"} if enrolled else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def account(where: str, name: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": where}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}


def pod(where: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": where, "labels": {"app": name}},
        "spec": {"serviceAccountName": name, "containers": [{"name": "app"}]},
    }


def strict(where: str) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": where},
        "spec": {"mtls": {"mode": "STRICT"}},
    }


def principal(where: str, name: str) -> str:
    return f"cluster.local/ns/{where}/sa/{name}"


def allow(name: str, rules: Iterable[list[str]], where: str = MESH) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": where},
        "spec": {
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": each}}]} for each in rules],
        },
    }


def many_rules(count: int) -> str:
    """Policies with `count` rules in all that match nobody here: each must be looked at."""
    made = []
    for start in range(0, count, RULES_PER_POLICY):
        numbers = range(start, min(count, start + RULES_PER_POLICY))
        rules = [[principal("elsewhere", f"account-{number}")] for number in numbers]
        made.append(allow(f"a-many-{start // RULES_PER_POLICY}", rules))  # before "few" by name
    return documents(made)


def pushed_pods(count: int) -> Iterator[tuple[str, str]]:
    """(file name, text): running pods of a node that is not in the lab, enrolled as ours are."""
    for start in range(0, count, PODS_PER_FILE):
        numbers = range(start, min(count, start + PODS_PER_FILE))
        yield PUSH_FILE.format(start // PODS_PER_FILE), documents(map(_pushed, numbers))


def _pushed(number: int) -> dict[str, Any]:
    address = _PUSHED_NET.format(200 + number // 62_500, number // 250 % 250, number % 250 + 1)
    value = pod(MESH, f"pushed-{number}")
    value["metadata"]["uid"] = f"00000000-0000-4000-8000-{number:012d}"
    value["spec"] |= {"nodeName": "tb-far", "serviceAccountName": f"account-{number % 100}"}
    value["status"] = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return value


def documents(values: Iterable[dict[str, Any]]) -> str:
    return "".join(f"---\n{json.dumps(each)}\n" for each in values)


def lab_spec(work: Path, serve: list[str], ztunnel: Sequence[str] = ()) -> dict[str, Any]:
    """`ztunnel`: command of a foreign one, for two more nodes."""
    pods: dict[str, Any] = {}
    nodes: dict[str, Any] = {NODE_A: {}, NODE_B: {}}
    places = {MESH: (NODE_A, NODE_B), PLAIN: (NODE_A, NODE_B)}
    if ztunnel:
        places[FOREIGN] = (NODE_C, NODE_D)
        nodes |= {name: {"ztunnel": list(ztunnel)} for name in places[FOREIGN]}
    for where, (here, there) in places.items():
        pods[f"{where}/client"] = {"node": here, "command": ["sleep", "infinity"]}
        for name, node in (("near", here), ("server", there)):
            command = [*serve, str(work / f"{where}-{name}"), HTTP, BULK, ECHO]
            pods[f"{where}/{name}"] = {"node": node, "command": command, "ready": {"tcp": ECHO}}
    return {"name": LAB, "nodes": nodes, "pods": pods}


def write_lab(folder: Path, serve: list[str], ztunnel: Sequence[str] = ()) -> None:
    (folder / "lab.yaml").write_text(json.dumps(lab_spec(folder, serve, ztunnel)))
    (folder / "manifests.yaml").write_text(documents(objects(foreign=bool(ztunnel))))
