"""Policies as a table: each with connections that it refuses, and some that it does not touch."""

from __future__ import annotations

import json
from dataclasses import dataclass

Case = tuple[str, str, int]  # who calls whom, at which port


def authorization(
    rules: object, action: str = "DENY", app: str = "server", namespace: str = "mesh"
) -> str:
    spec: dict[str, object] = {"action": action}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    if rules is not None:
        spec["rules"] = rules
    value = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "tested", "namespace": namespace},
        "spec": spec,
    }
    return json.dumps(value) + "\n"


def source(**fields: list[str]) -> list[object]:
    return [{"from": [{"source": fields}]}]


def peer(namespace: str, app: str = "", ports: dict[str, str] | None = None) -> str:
    spec: dict[str, object] = {"mtls": {"mode": "STRICT"}}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    if ports:
        spec["portLevelMtls"] = {port: {"mode": mode} for port, mode in ports.items()}
    value = {
        "apiVersion": "security.istio.io/v1beta1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": spec,
    }
    return json.dumps(value) + "\n"


CLIENT = "cluster.local/ns/mesh/sa/client"
OTHER = "cluster.local/ns/mesh/sa/other"
C, E, S, N, X = "client", "other", "server", "near", "stranger"


@dataclass(frozen=True)
class Row:
    policy: str
    refused: tuple[Case, ...]
    allowed: tuple[Case, ...]


ROWS = {
    "deny principal": Row(
        authorization(source(principals=[CLIENT])),
        ((C, S, 8080), (C, S, 9090)),
        ((E, S, 8080), (C, N, 8080), (X, S, 8080)),
    ),
    "deny namespace": Row(
        authorization(source(namespaces=["mesh"])),
        ((C, S, 8080), (E, S, 8080)),
        ((X, S, 8080), (C, N, 8080)),
    ),
    "deny other namespaces": Row(
        authorization(source(notNamespaces=["mesh"])), ((X, S, 8080),), ((C, S, 8080),)
    ),
    "deny port": Row(
        authorization([{"to": [{"operation": {"ports": ["9090"]}}]}]),
        ((C, S, 9090), (X, S, 9090)),
        ((C, S, 8080), (X, S, 8080)),
    ),
    "allow list": Row(
        authorization(source(principals=[OTHER]), "ALLOW"),
        ((C, S, 8080), (X, S, 8080)),
        ((E, S, 8080), (C, N, 8080)),
    ),
    "names are compared whole": Row(
        authorization(source(principals=[OTHER[:-1], CLIENT + "x", "other"]), "ALLOW"),
        ((C, S, 8080), (E, S, 8080)),
        ((C, N, 8080),),
    ),
    "a prefix is a prefix": Row(
        authorization(source(principals=["cluster.local/ns/mesh/sa/oth*"]), "ALLOW"),
        ((C, S, 8080), (X, S, 8080)),
        ((E, S, 8080),),
    ),
    "allow nothing in a namespace": Row(
        authorization(None, "ALLOW", app=""),
        ((C, S, 8080), (E, N, 8080), (X, N, 8080)),
        ((C, X, 8080),),
    ),
    "root namespace": Row(
        authorization(source(principals=[CLIENT]), app="", namespace="istio-system"),
        ((C, S, 8080), (C, N, 8080)),
        ((E, S, 8080), (E, N, 8080), (X, S, 8080)),
    ),
    "another namespace": Row(
        authorization(source(principals=[CLIENT]), app="", namespace="plain"),
        (),
        ((C, S, 8080), (C, N, 8080), (C, X, 8080)),
    ),
    "strict mesh": Row(
        peer("istio-system"),
        ((X, S, 8080), (X, N, 8080)),
        ((C, S, 8080), (C, N, 8080), (C, X, 8080)),
    ),
    "strict namespace": Row(
        peer("mesh"), ((X, S, 8080), (X, N, 9090)), ((C, S, 8080), (C, X, 8080))
    ),
    "strict selector": Row(
        peer("mesh", "server"), ((X, S, 8080), (X, S, 9090)), ((X, N, 8080), (C, S, 8080))
    ),
    "strict but one port": Row(
        peer("mesh", "server", {"9090": "PERMISSIVE"}),
        ((X, S, 8080),),
        ((X, S, 9090), (C, S, 8080), (X, N, 8080)),
    ),
}
