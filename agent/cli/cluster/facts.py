"""Facts about a cluster that installation and checks are decided on, read in one go."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec

from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import CRDS, NAMESPACES, NODES, Resource

DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
PAGE = 500
PAGES_MAX = 40  # 20,000 nodes
PART_OF, NAME, VERSION, MANAGED_BY = (
    f"app.kubernetes.io/{each}" for each in ("part-of", "name", "version", "managed-by")
)

T = TypeVar("T")


class ObjectMeta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def label(self, key: str) -> str:
        return (self.labels or {}).get(key, "")


class Versions(msgspec.Struct, rename="camel"):
    kubelet_version: str = ""
    kernel_version: str = ""
    container_runtime_version: str = ""
    operating_system: str = ""
    architecture: str = ""
    os_image: str = ""


class NodeStatus(msgspec.Struct, rename="camel"):
    node_info: Versions = msgspec.field(default_factory=Versions)


class NodeProvider(msgspec.Struct):
    provider: str = msgspec.field(default="", name="providerID")


class Node(msgspec.Struct):
    metadata: ObjectMeta
    spec: NodeProvider = msgspec.field(default_factory=NodeProvider)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def about(self) -> Versions:
        return self.status.node_info


class Named(msgspec.Struct):
    """Any object, as far as who it is."""

    metadata: ObjectMeta


class ServerVersion(msgspec.Struct, rename="camel"):
    git_version: str = ""
    major: str = ""
    minor: str = ""


class ApiGroup(msgspec.Struct):
    name: str


class ApiGroups(msgspec.Struct):
    groups: list[ApiGroup] = []


class ListMeta(msgspec.Struct):
    token: str = msgspec.field(default="", name="continue")


class ClusterFacts(msgspec.Struct):
    version: ServerVersion
    groups: list[str]
    nodes: list[Node]
    definitions: list[Named]
    deployments: list[Named]
    daemon_sets: list[Named]
    unknown: list[str]  # lists that we may not read
    namespaces: list[Named] = []

    @property
    def control(self) -> ObjectMeta | None:
        """The Deployment of a Tulle that is installed."""
        return next(
            (
                each.metadata
                for each in self.deployments
                if each.metadata.label(NAME) == "tulle-control"
            ),
            None,
        )

    def find(self, kind: str, name: str) -> ObjectMeta | None:
        """An object of one of the kinds that the chart looks up."""
        lists = {CRDS.kind: self.definitions, NAMESPACES.kind: self.namespaces}
        found = (each.metadata for each in lists.get(kind, ()) if each.metadata.name == name)
        return next(found, None)

    def own_definitions(self) -> list[str]:
        return [
            each.metadata.name
            for each in self.definitions
            if each.metadata.label(PART_OF) == "tulle"
        ]


async def read(client: KubeClient) -> ClusterFacts:
    """Raises Unreachable or ApiError without an answer at all; a list that is forbidden is one of
    the unknown."""
    version = await client.get("/version", ServerVersion)
    unknown: list[str] = []

    async def listed(resource: Resource, into: type[T]) -> list[T]:
        try:
            return await list_all(client, resource.path(), into)
        except ApiError as exc:
            if exc.code != 403:
                raise
            unknown.append(exc.message)
            return []

    async with asyncio.TaskGroup() as tasks:
        groups = tasks.create_task(client.get("/apis", ApiGroups), name="groups")
        nodes = tasks.create_task(listed(NODES, Node), name="nodes")
        definitions = tasks.create_task(listed(CRDS, Named), name="definitions")
        deployments = tasks.create_task(listed(DEPLOYMENTS, Named), name="deployments")
        daemon_sets = tasks.create_task(listed(DAEMON_SETS, Named), name="daemonsets")
        namespaces = tasks.create_task(listed(NAMESPACES, Named), name="namespaces")
    return ClusterFacts(
        version,
        [each.name for each in groups.result().groups],
        nodes.result(),
        definitions.result(),
        deployments.result(),
        daemon_sets.result(),
        unknown,
        namespaces.result(),
    )


async def list_all(
    client: KubeClient, path: str, into: type[T], parameters: dict[str, str] | None = None
) -> list[T]:
    """All objects of a collection, page by page; those of an early page stay when one changes."""

    class Page(msgspec.Struct):
        items: list[Any] = []
        metadata: ListMeta = msgspec.field(default_factory=ListMeta)

    found: list[T] = []
    asked = {"limit": str(PAGE), **(parameters or {})}
    for _ in range(PAGES_MAX):
        page = await client.get(path, Page, asked)
        found += [msgspec.convert(each, into) for each in page.items]
        if not page.metadata.token:
            break
        asked["continue"] = page.metadata.token
    return found
