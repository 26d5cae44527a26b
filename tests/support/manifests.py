"""Manifests as text → objects and a compiled mesh, for tests."""

from __future__ import annotations

from control.server.compile.mesh import CompiledMesh, compile_mesh
from control.server.compile.settings import Settings
from control.server.sources.folder import Folder
from control.server.sources.objects import Objects
from control.server.sources.snapshot import Snapshot


def load(text: str, file: str = "a.yaml") -> Snapshot:
    """Snapshot of a folder with this one file."""
    folder = Folder()
    folder.load(file, text.encode())
    return folder.snapshot()


def objects(text: str) -> Objects:
    """As `load`, for text that must be right."""
    snapshot = load(text)
    assert snapshot.problems == ()
    return snapshot.objects


def mesh(text: str, captured: frozenset[str] = frozenset(), **settings: object) -> CompiledMesh:
    return compile_mesh(objects(text), Settings(**settings), captured)  # type: ignore[arg-type]  # test shorthand


def pod(
    name: str = "web",
    namespace: str = "shop",
    labels: str = "",
    spec: str = "",
    address: str = "10.1.0.1",
) -> str:
    """One running pod on n1. `labels` and `spec` are the inside of a flow mapping; without an
    address its status has none."""
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}
spec: {{nodeName: n1, {spec}}}
status: {{phase: Running{f", podIP: {address}" if address else ""}}}
"""


def policy(spec: str, kind: str = "AuthorizationPolicy", **meta: str) -> str:
    """One policy; `spec` is YAML flow text, `meta` overrides name, namespace, …"""
    fields = {"name": "p", "namespace": "shop", **meta}
    body = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return f"""
---
apiVersion: security.istio.io/v1
kind: {kind}
metadata: {{{body}}}
spec: {spec}
"""
