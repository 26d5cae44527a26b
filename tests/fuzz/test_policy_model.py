"""The policy model alone, against the conformance table of Istio's ambient mode, by its numbers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fuzz.policy_contents import Options
from tests.fuzz.policy_form import Tree
from tests.fuzz.policy_model import Call, Model

POD = ("cfg", "web")
ACCOUNT = "td/ns/namespace/sa/account"
# The connections of the table: plaintext, the same with an identity, and a different one.
P = Call(POD, "127.0.0.2", 8080, "127.0.0.1")
T = Call(POD, "127.0.0.2", 0, "127.0.0.1", ("td", "namespace", "account"), "127.0.0.2:8080")
A = Call(POD, "127.0.0.4", 0, "127.0.0.3", ("td-alt", "ns-alt", "sa-alt"), "127.0.0.4:9090")


def tree(kind: str, spec: Any, name: str = "p", namespace: str = "cfg", **meta: Any) -> Tree:
    version = "v1" if kind in ("Pod", "Service") else "security.istio.io/v1"
    metadata = {"name": name, "namespace": namespace, **meta}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


WEB = {
    **tree("Pod", {}, "web", labels={"app": "web"}),
    "status": {"podIPs": [{"ip": "127.0.0.2"}, {"ip": "127.0.0.4"}]},
}


def model(*trees: Tree, **options: Any) -> Model:
    found = Model(Options(**options))
    found.load({"a.yaml": [WEB, *trees]})
    return found


def statuses(found: Model, *calls: Call) -> str:
    """A letter a call: y for one that is let in, n for one that policy refuses."""
    letters = {200: "y", 401: "n"}
    answers = [found.answer(call) for call in calls]
    return "".join("-" if each is None else letters.get(each.status, "?") for each in answers)


def allow(spec: Tree, **fields: Any) -> str:
    return statuses(model(tree("AuthorizationPolicy", spec, **fields)), P, T, A)


def source(**fields: list[str]) -> Tree:
    return {"rules": [{"from": [{"source": fields}]}]}


def operation(**fields: list[str]) -> Tree:
    return {"rules": [{"to": [{"operation": fields}]}]}


def when(key: str, **fields: list[str]) -> Tree:
    return {"rules": [{"when": [{"key": key, **fields}]}]}


@pytest.mark.parametrize(
    ("number", "spec", "expected"),
    [
        (3, {"rules": [{}]}, "yyy"),
        (4, {}, "nnn"),
        (4, {"rules": []}, "nnn"),
        (5, source(namespaces=["namespace"]), "nyn"),
        (6, source(notNamespaces=["namespace"]), "yny"),
        (7, source(serviceAccounts=["namespace/account"]), "nyn"),
        (8, source(notServiceAccounts=["namespace/account"]), "yny"),
        (9, source(principals=[ACCOUNT]), "nyn"),
        (10, source(notPrincipals=[ACCOUNT]), "yny"),
        (11, source(ipBlocks=["127.0.0.1/32"]), "yyn"),
        (12, source(notIpBlocks=["127.0.0.1/32"]), "nny"),
        (13, when("destination.ip", values=["127.0.0.2"]), "yyn"),
        (14, when("destination.ip", notValues=["127.0.0.2"]), "nny"),
        (16, operation(ports=["8080"]), "yyn"),
        (17, operation(notPorts=["8080"]), "nny"),
        (22, {"rules": [*source(namespaces=["x"])["rules"], {}]}, "yyy"),
        (24, source(namespaces=["name*"]), "nyn"),
        (25, source(namespaces=["*space"]), "nyn"),
        (26, source(namespaces=["*"]), "nyy"),
        (26, source(notPrincipals=["*"]), "ynn"),
        (41, source(serviceAccounts=["account"]), "nnn"),
        (42, source(ipBlocks=["127.0.0.0/30"]), "yyy"),
        (45, source(principals=["*"], requestPrincipals=["*"]), "nnn"),
        (46, operation(ports=["8080"], methods=["GET"]), "nnn"),
        (49, operation(methods=["GET"]), "nnn"),
        (51, {"action": "DENY", **operation(ports=["8080"], methods=["GET"])}, "nny"),
        (52, {"action": "DENY", **operation(methods=["GET"])}, "yyy"),
        (55, {"action": "AUDIT", "rules": [{}]}, "yyy"),
        (55, {"action": "CUSTOM", "rules": [{}]}, "yyy"),
        (56, {"targetRefs": [{"kind": "Service", "name": "s"}]}, "yyy"),
        (60, {"action": "DENY", "rules": [{}]}, "nnn"),
    ],
)
def test_one_policy(number: int, spec: Tree, expected: str) -> None:
    assert allow(spec) == expected, number


def test_18_clauses_are_and_matches_or() -> None:
    rule = {
        "from": [{"source": {"namespaces": ["namespace"]}}, {"source": {"namespaces": ["ns-alt"]}}],
        "to": [{"operation": {"ports": ["8080"]}}],
    }
    assert allow({"rules": [rule]}) == "nyn"


@pytest.mark.parametrize(("namespace", "expected"), [("other", "yyy"), ("istio-system", "nnn")])
def test_37_and_38_other_namespaces(namespace: str, expected: str) -> None:
    assert allow({}, namespace=namespace) == expected


def test_27_deny_comes_first() -> None:
    both = [
        tree("AuthorizationPolicy", {"rules": [{}]}, "a"),
        tree("AuthorizationPolicy", {"action": "DENY", **source(principals=["*"])}, "d"),
    ]
    found = model(*both)
    assert statuses(found, P, T, A) == "ynn"
    denied = found.answer(T)
    assert denied is not None
    assert denied.named == {"cfg/d"}


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize("switch", [True, False])
def test_33_34_and_57_a_dry_run_only_warns(action: str, *, switch: bool) -> None:
    spec = {"action": action, "rules": [{}] if action == "DENY" else []}
    annotations = {"istio.io/dry-run": "true"}
    policy = tree("AuthorizationPolicy", spec, annotations=annotations)
    answer = model(policy, dry_run=switch).answer(T)
    assert answer is not None
    assert (answer.status, answer.would_deny) == (200, switch)


@pytest.mark.parametrize(
    ("number", "modes", "ports", "expected"),
    [
        (61, ("", "DISABLE", ""), {}, []),
        (61, ("", "PERMISSIVE", ""), {}, []),
        (61, ("", "STRICT", ""), {}, [80, 8080, 9090]),
        (62, ("", "", "STRICT"), {}, [80, 8080, 9090]),
        (65, ("", "", "STRICT"), {8080: "STRICT"}, [80, 8080, 9090]),
        (67, ("", "", "PERMISSIVE"), {9090: "STRICT"}, [9090]),
        (70, ("", "", "UNSET"), {8080: "STRICT"}, [8080]),
        (71, ("STRICT", "", "UNSET"), {9090: "PERMISSIVE"}, [80, 8080]),
        (74, ("PERMISSIVE", "STRICT", "UNSET"), {9090: "PERMISSIVE"}, [80, 8080]),
        (77, ("PERMISSIVE", "", "UNSET"), {9090: "PERMISSIVE"}, []),
        (0, ("STRICT", "UNSET", "UNSET"), {9090: "DISABLE"}, [80, 8080]),
        (0, ("STRICT", "PERMISSIVE", ""), {}, []),
    ],
)
def test_mutual_tls(
    number: int, modes: tuple[str, str, str], ports: dict[int, str], expected: list[int]
) -> None:
    """Modes of mesh, namespace and workload ("": there is no such object) -> strict ports."""
    by_port = {str(port): {"mode": mode} for port, mode in ports.items()}
    own = {"selector": {"matchLabels": {"app": "web"}}, "portLevelMtls": by_port}
    places = (("istio-system", "p", {}), ("cfg", "p", {}), ("cfg", "own", own))
    found = model(
        *(
            tree("PeerAuthentication", {**spec, "mtls": {"mode": mode}}, name, namespace)
            for mode, (namespace, name, spec) in zip(modes, places, strict=True)
            if mode
        )
    )
    calls = [Call(POD, "127.0.0.2", port, "127.0.0.1") for port in (80, 8080, 9090)]
    assert [each.port for each in calls if statuses(found, each) == "n"] == expected, number


def test_78_a_selector_in_the_root_namespace_has_no_effect() -> None:
    spec = {"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "STRICT"}}
    found = model(tree("PeerAuthentication", spec, namespace="istio-system"))
    assert statuses(found, P) == "y"


@pytest.mark.parametrize(
    ("number", "authority", "expected"),
    [
        (84, "127.0.0.3:8080", 400),
        (86, "127.0.0.2", 400),
        (90, "127.0.0.2:80", 401),
        (91, "web.cfg.svc.cluster.local:80", 200),
        (93, "127.0.0.2:15008", 503),
        (0, "web.cfg.svc.cluster.local:81", 503),
        (0, "other.cfg.svc.cluster.local:80", 503),
    ],
)
def test_authorities(number: int, authority: str, expected: int) -> None:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    service = tree("Service", spec, "web")
    found = model(service, tree("AuthorizationPolicy", operation(ports=["8080"])))
    answer = found.answer(Call(POD, "127.0.0.2", 0, "127.0.0.1", T.identity, authority))
    assert answer is not None
    assert answer.status == expected, number


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (5, "nnn"),
        ({"rule": []}, "nnn"),
        ({"action": "DENY", "rules": [{"from": []}]}, "nnn"),
        ({"action": "DNEY"}, "nnn"),
        ({"action": "AUDIT", "rules": 5}, "yyy"),
        ({"selector": {"matchLabels": {"app": "other"}}, "rules": 5}, "yyy"),
        ({"selector": {"matchLabels": 5}}, "nnn"),
        ({"targetRef": {"kind": "Service", "name": "s"}, "rules": 5}, "yyy"),
        ({"targetRef": {"kind": "Service"}}, "nnn"),
        (source(principals=[]), "nnn"),
        (operation(ports=["08080"]), "nnn"),
        (source(ipBlocks=["fe80::1%eth0"]), "nnn"),
    ],
)
def test_a_policy_that_cannot_be_understood_denies_where_it_was_meant(
    spec: Any, expected: str
) -> None:
    policy = tree("AuthorizationPolicy", spec)
    found = model(policy, tree("AuthorizationPolicy", {"rules": [{}]}, "open"))
    assert found.problems == [("AuthorizationPolicy", "cfg/p")]
    # Beside a policy that allows everything, a broken ALLOW leaves what that one allows. A spec
    # that nobody can read, or with a field that nobody knows, may have been a DENY.
    action = "?" if spec == 5 or "rule" in spec else spec.get("action", "ALLOW")
    assert statuses(found, P, T, A) == ("yyy" if action == "ALLOW" else expected)
    assert statuses(model(policy), P, T, A) == expected
