"""Any tree at any place of a manifest: the object is read or is one problem, and costs no other."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from control.server.compile.mesh import KnownCaptures, Mesh, compile_mesh
from control.server.compile.settings import Settings
from control.server.gateway.gateways import Gateways
from control.server.sources.folder import Folder
from tests.support.mesh_cache import MeshCache

SPOTS_PER_KIND = 250
NEIGHBOUR: dict[str, Any] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "neighbour", "namespace": "shop"},
    "spec": {"action": "DENY", "rules": [{"from": [{"source": {"namespaces": ["bad"]}}]}]},
}


def meta(**more: Any) -> dict[str, Any]:
    return {
        "name": "it",
        "namespace": "shop",
        "uid": "0-1",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app": "web", "kubernetes.io/service-name": "web"},
        "annotations": {"tulle.io/path": "tunnel"},
        **more,
    }


SOURCE = {
    "principals": ["cluster.local/ns/shop/sa/a"],
    "namespaces": ["a"],
    "notNamespaces": ["b*"],
    "ipBlocks": ["10.0.0.0/8", "fd00::/8"],
    "remoteIpBlocks": ["10.0.0.1"],
}
OBJECTS: dict[str, dict[str, Any]] = {
    "Namespace": {"apiVersion": "v1", "metadata": meta()},
    "ServiceAccount": {"apiVersion": "v1", "metadata": meta()},
    "Node": {
        "apiVersion": "v1",
        "metadata": meta(),
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]},
    },
    "Pod": {
        "apiVersion": "v1",
        "metadata": meta(ownerReferences=[{"controller": True, "kind": "Job", "name": "j-1"}]),
        "spec": {
            "nodeName": "n1",
            "serviceAccountName": "web",
            "hostNetwork": False,
            "initContainers": [{"ports": [{"containerPort": 1}], "restartPolicy": "Always"}],
            "containers": [{"ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    },
    "Service": {
        "apiVersion": "v1",
        "metadata": meta(),
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.9.0.1",
            "clusterIPs": ["10.9.0.1", "fd09::1"],
            "ipFamilies": ["IPv4", "IPv6"],
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "tcp"}],
            "internalTrafficPolicy": "Local",
            "trafficDistribution": "PreferClose",
            "publishNotReadyAddresses": True,
            "externalIPs": ["192.0.2.2", "10.0.0.1"],
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}},
    },
    "EndpointSlice": {
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": meta(),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}],
        "endpoints": [
            {
                "addresses": ["10.0.0.1"],
                "nodeName": "n1",
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "it"},
                "hints": {"forZones": [{"name": "z"}]},
                "zone": "z",
            },
            {"addresses": ["10.0.0.1", "10.9.0.1"], "targetRef": {"kind": "Node", "name": "n"}},
        ],
    },
    "AuthorizationPolicy": {
        "apiVersion": "security.istio.io/v1",
        "metadata": meta(),
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "action": "ALLOW",
            "rules": [
                {
                    "from": [{"source": SOURCE}],
                    "to": [{"operation": {"ports": ["80"], "notPorts": ["81"]}}],
                    "when": [{"key": "destination.port", "values": ["80"], "notValues": ["1"]}],
                }
            ],
        },
    },
    "PeerAuthentication": {
        "apiVersion": "security.istio.io/v1",
        "metadata": meta(),
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "mtls": {"mode": "STRICT"},
            "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}},
        },
    },
    "Gateway": {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "metadata": meta(),
        "spec": {
            "gatewayClassName": "tulle-waypoint",
            "listeners": [
                {
                    "name": "mesh",
                    "port": 15008,
                    "protocol": "HBONE",
                    "allowedRoutes": {
                        "namespaces": {
                            "from": "Selector",
                            "selector": {
                                "matchLabels": {"a": "b"},
                                "matchExpressions": [
                                    {"key": "a", "operator": "In", "values": ["b"]}
                                ],
                            },
                        }
                    },
                }
            ],
        },
    },
    "HTTPRoute": {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "metadata": meta(),
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "it", "port": 80}],
            "hostnames": ["*.example.org"],
            "rules": [
                {
                    "name": "one",
                    "matches": [
                        {
                            "path": {"type": "RegularExpression", "value": "/a(b|c)*"},
                            "method": "GET",
                            "headers": [{"name": "A", "value": "b", "type": "Exact"}],
                            "queryParams": [{"name": "a", "value": "b"}],
                        }
                    ],
                    "filters": [
                        {
                            "type": "RequestHeaderModifier",
                            "requestHeaderModifier": {
                                "set": [{"name": "A", "value": "b"}],
                                "remove": ["b"],
                            },
                        },
                        {
                            "type": "RequestMirror",
                            "requestMirror": {
                                "backendRef": {"name": "it", "port": 80},
                                "fraction": {"numerator": 1, "denominator": 2},
                            },
                        },
                        {"type": "URLRewrite", "urlRewrite": {"hostname": "a.b"}},
                        {"type": "CORS", "cors": {"allowOrigins": ["https://a.b"], "maxAge": 5}},
                    ],
                    "backendRefs": [{"name": "it", "port": 80, "weight": 1}],
                    "timeouts": {"request": "1s", "backendRequest": "500ms"},
                    "retry": {"codes": [503], "attempts": 1, "backoff": "1s"},
                }
            ],
        },
    },
    "ReferenceGrant": {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "metadata": meta(),
        "spec": {
            "from": [
                {
                    "group": "gateway.networking.k8s.io",
                    "kind": "HTTPRoute",
                    "namespace": "shop",
                }
            ],
            "to": [{"group": "", "kind": "Service", "name": "it"}],
        },
    },
}
LEAVES: list[Any] = [
    *(None, True, False, 0, -1, 1, 65535, 65536, 2**31, 2**63, 10**18, 1.5, 1e300),
    *("", " ", "*", "a", "A", "0", "08080", "\0", "\n", "ü", "\U0001f600", "x" * 300, "10.0.0.1"),
    *("fe80::1%eth0", "::ffff:10.0.0.1", "10.0.0.0/33", "10.0.0.1/8", "List", "Pod", "UNSET"),
]


def tree(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if depth > 3 or kind < 0.5:
        return rng.choice(LEAVES)
    if kind < 0.75:
        return [tree(rng, depth + 1) for _ in range(rng.randrange(3))]
    keys = ("name", "namespace", "mode", "labels", "ip", "kind", "items", "<<", "x")
    return {rng.choice(keys): tree(rng, depth + 1) for _ in range(rng.randrange(3))}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


def with_tree(document: Any, path: tuple[Any, ...], put: Any) -> Any:
    """A copy with another value at the path."""
    if not path:
        return put
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = with_tree(copy[path[0]], path[1:], put)
    return copy


@pytest.mark.parametrize("kind", OBJECTS)
def test_any_tree_at_any_place_costs_one_object(kind: str) -> None:
    rng = random.Random(kind)
    whole = {"kind": kind, **OBJECTS[kind]}
    spots = list(places(whole))
    for round_ in range(SPOTS_PER_KIND):
        path = spots[round_ % len(spots)]
        bad = with_tree(whole, path, tree(rng))
        text = "\n---\n".join(json.dumps(each) for each in (NEIGHBOUR, bad, whole))
        folder = Folder()
        folder.load("a.yaml", text.encode())
        found = folder.snapshot()
        assert NEIGHBOUR["metadata"]["name"] in {
            each.meta.name for each in found.objects.authorization_policies if not each.broken
        }, text
        items = bad.get("items") if isinstance(bad, dict) else None
        bound = 2 + (len(items) if isinstance(items, list) else 0)  # itself, and a duplicate name
        assert len(found.problems) <= bound, (text, found.problems)
        MeshCache().update(compile_mesh(found.objects, Settings(), frozenset()))
        everything = found.objects.by_key()
        mesh = Mesh(Settings(), KnownCaptures(frozenset()))
        Gateways(Settings()).apply(everything, mesh.apply(everything))
