"""A small mesh as the admin sockets would tell it: two nodes, one connection between them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from agent.cli.mesh import MeshDump

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
A, B = "spiffe://cluster.local/ns/shop/sa/a", "spiffe://cluster.local/ns/shop/sa/b"
PRIVATE_KEY = (
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIabcdef0123456789\n-----END EC PRIVATE KEY-----\n"
)
NOTE = {
    "file": "p.yaml",
    "line": 7,
    "object": "AuthorizationPolicy shop/p",
    "reason": "UnsupportedValue",
    "message": "the rule is dropped",
}
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJub2RlIjoibjEifQ.c2lnbmF0dXJl"


def connection(**more: Any) -> dict[str, Any]:
    return {
        "src": "10.71.1.2:40000",
        "originalDst": "172.20.0.10:80",
        "actualDst": "10.72.1.2:15008",
        "protocol": "HBONE",
        "sourceIdentity": A,
        "destinationIdentity": B,
        "sourceWorkload": "shop/a",
        "destinationWorkload": "shop/b",
        "service": "b.shop.svc.cluster.local",
        "policy": "",
        "openedAt": "2026-11-22T11:55:50+00:00",
        "bytesSent": 10,
        "bytesReceived": 32,
        "worker": 0,
        **more,
    }


def workload(name: str, node: str, address: str) -> dict[str, Any]:
    return {
        "uid": f"Kubernetes//Pod/shop/{name}",
        "workloadIps": [address],
        "protocol": "HBONE",
        "name": name,
        "namespace": "shop",
        "serviceAccount": name,
        "trustDomain": "cluster.local",
        "node": node,
        "status": "Healthy",
        "services": [],
    }


def certificate() -> dict[str, Any]:
    one = {
        "pem": base64.b64encode(
            b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"
        ).decode(),
        "serialNumber": "255",
        "validFrom": "2026-11-22T00:00:00Z",
        "expirationTime": "2026-11-23T00:30:00Z",
    }
    return {"identity": A, "state": "Available", "certChain": [one], "rootCerts": [one]}


def ztunnel(node: str, pod: str, side: str) -> dict[str, Any]:
    return {
        "workloads": [workload("b", "n2", "10.72.1.2"), workload("a", "n1", "10.71.1.2")],
        "services": [
            {
                "name": "b",
                "namespace": "shop",
                "hostname": "b.shop.svc.cluster.local",
                "vips": ["/172.20.0.10", "/fd72::a"],
                "outerAddresses": {"/192.0.2.1": [80]},
                "ports": {"80": 8080},
                "endpoints": {"1": {"status": "Healthy"}, "2": {"status": "Unhealthy"}},
            }
        ],
        "policies": [
            {
                "name": "p",
                "namespace": "shop",
                "action": "Allow",
                "scope": "Namespace",
                "rules": [[]],
            }
        ],
        "certificates": [certificate()],
        "workloadState": {
            "u1": {
                "info": {"name": pod, "namespace": "shop", "serviceAccount": pod},
                "connections": {"inbound": [], "outbound": [], side: [connection()]},
            }
        },
        "version": {"version": "1.0", "compiled": "yes"},
        "tenants": [
            {"kind": "peer", "name": B, "cpuMs": 1500, "connections": 3, "refused": 7},
            {"kind": "pod", "name": f"shop/{pod}", "cpuMs": 20, "queuedBytes": 4096},
        ],
        "workers": [{"pid": 1}],
        "config": {"token": "/run/token", "note": f"Bearer {TOKEN}"},
    }


def agent(node: str, pod: str, state: str) -> dict[str, Any]:
    return {
        "version": "1.0",
        "control": {"connected": True},
        "ztunnels": [{"pid": 1}],
        "maps": [
            {"name": "pods", "used": 1, "max": 1000, "drops": 0},
            {"name": "flows", "used": 512, "max": 1024, "drops": 3},
        ],
        "pods": [
            {
                "namespace": "shop",
                "name": pod,
                "state": state,
                "reason": "no_ztunnel",
                "since": "2026-11-22T11:00:00.123+00:00",
                "uncaptured_connections": 2,
            }
        ],
    }


def example() -> MeshDump:
    return MeshDump(
        NOW,
        nodes={
            "n1": {
                "agent": agent("n1", "a", "captured"),
                "ztunnel": ztunnel("n1", "a", "outbound"),
            },
            "n2": {"agent": agent("n2", "b", "failed"), "ztunnel": ztunnel("n2", "b", "inbound")},
        },
        control={
            "status": {"version": "1.0", "nodes": [{"node": "n1"}]},
            "problems": [],
            "notes": [],
        },
        labels={
            "namespace": {"shop": {"istio.io/dataplane-mode": "ambient"}, "idle": {}},
            "pod": {"shop/a": {"app": "a"}, "shop/b": {"app": "b"}},
        },
    )
