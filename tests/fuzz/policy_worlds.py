"""Random scenarios for the policy fuzzer: a folder that changes over a few steps, and calls to it.

Everything follows from one `random.Random`.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.fuzz.policy_contents import Options
from tests.fuzz.policy_form import Tree
from tests.fuzz.policy_found import POLICIES
from tests.fuzz.policy_model import Call
from tests.fuzz.policy_objects import ACCOUNTS, DOMAINS, NAMESPACES, POD_ADDRESSES, PORTS, Objects

Folder = dict[str, list[Any] | None]  # file → objects; None: it is not YAML

SPOILT_SHARE = 0.08  # one object in twelve
ROOTS = ("istio-system", "istio-system", "a")
# At the edges of the blocks in policies, and just behind them.
SOURCES = (
    *("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.255", "10.0.1.0", "10.255.255.255"),
    *("9.255.255.255", "11.0.0.0", "127.0.0.1", "0.0.0.0", "255.255.255.255", "::ffff:10.0.0.1"),
    *("fd00::1", "fd00::2", "fd00:0:0:1::", "fd01::1", "::1", "::", "::ffff:9.9.9.9"),
)
ODD = (None, "", 0, 5, True, 1.5, "x", [], {}, ["x"], {"x": "y"}, "*", [None], [{}])
BAD_AUTHORITIES = (
    *("", "10.0.0.1", "10.0.0.1:", ":80", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.01:80"),
    *("[10.0.0.1]:80", "fd00::1:80", "[fd00::1]", "[fe80::1%eth0]:80", "a b:80", "x.y:80", "-:80"),
    *("10.0.0.1:\u0668\u0660", "1.2.3:80", "10.0.0.1:80:80", "[10.0.0.1:80"),
)


class Before(Enum):
    """An event that must change nothing, before a step."""

    NOTHING = 0
    RECONNECT = 1  # the node's stream breaks, and a new one follows
    RESTART = 2  # the control plane restarts without its memory


@dataclass
class Step:
    """A folder's content, what happens to policies on the wire, and the calls after it."""

    files: Folder
    before: Before = Before.NOTHING
    damage: dict[str, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)


@dataclass
class Scenario:
    options: Options
    steps: list[Step]


class Worlds:
    """Makes one scenario after the other from one source of chance."""

    def __init__(self, seed: str, calls: int) -> None:
        self._random = random.Random(seed)
        self._calls = calls

    def scenario(self) -> Scenario:
        chance = self._random
        self._options = Options(
            root=chance.choice(ROOTS),
            trust_domain=chance.choice(DOMAINS),
            dry_run=chance.random() < 0.3,
        )
        self._objects = Objects(chance, self._options)
        steps = [Step(self._folder())]
        for _ in range(chance.choice((0, 0, 1, 1, 2))):
            events = (*[Before.NOTHING] * 8, Before.RECONNECT, Before.RESTART)
            change = self._turned_policies if chance.random() < 0.3 else self._changed
            steps.append(Step(change(steps[-1].files), chance.choice(events)))
        if chance.random() < 0.25:
            if chance.random() < 0.7:
                steps.append(Step(self._edited_policies(steps[-1].files)))
            steps[-1].damage = self._damage(steps[-1].files)
        for each in steps:
            each.calls = self._calls_to(each.files)
        return Scenario(self._options, steps)

    # Folders

    def _folder(self) -> Folder:
        chance = self._random
        make = self._objects
        trees: list[Any] = [make.pod(name) for name in "xyz"[: chance.choice((1, 2, 2, 3))]]
        trees += [make.service() for _ in range(chance.choice((0, 0, 1)))]
        trees += [make.endpoint_slice() for _ in range(chance.choice((0, 0, 0, 1, 1, 2)))]
        trees += [make.authorization() for _ in range(chance.choice((0, 1, 2, 2, 3, 4, 5)))]
        trees += [make.peers() for _ in range(chance.choice((0, 1, 1, 2, 3, 4)))]
        chance.shuffle(trees)
        files: Folder = {}
        for each in trees:
            name = f"{chance.randrange(3)}.yaml"
            if chance.random() < SPOILT_SHARE:
                each = self._spoilt(each)
            self._content(files, name).append(each)
        return files

    @staticmethod
    def _content(files: Folder, name: str) -> list[Any]:
        content = files.get(name)
        if content is None:
            content = files[name] = []
        return content

    def _changed(self, before: Folder) -> Folder:
        """The same folder after a few edits. Trees are shared where nothing changed."""
        chance = self._random
        files = {name: None if trees is None else list(trees) for name, trees in before.items()}
        for _ in range(chance.choice((1, 1, 2, 3))):
            name = chance.choice([*files, f"{chance.randrange(3)}.yaml"])
            if chance.random() < 0.03:
                files[name] = None
                continue
            trees = self._content(files, name)
            match chance.randrange(7) if trees else 0:
                case 0:
                    make = self._objects
                    new = chance.choice((make.authorization, make.authorization, make.peers))()
                    trees.insert(chance.randint(0, len(trees)), new)
                case 1:
                    trees.pop(chance.randrange(len(trees)))
                case 2:
                    at = chance.randrange(len(trees))
                    trees[at] = self._spoilt(trees[at])
                case 3:
                    self._content(files, f"{chance.randrange(3)}.yaml").append(trees.pop())
                case _:
                    at = chance.randrange(len(trees))
                    trees[at] = self._edited(trees[at])
        return files

    def _edited_policies(self, before: Folder) -> Folder:
        """Half of the policies get another version."""
        return {
            name: trees
            and [
                self._edited(each)
                if _is_authorization(each) and self._random.random() < 0.5
                else each
                for each in trees
            ]
            for name, trees in before.items()
        }

    def _turned_policies(self, before: Folder) -> Folder:
        """Policies that get or lose their selector, allow what they denied, or change places: they
        and the workloads that name them go to a node apart."""
        chance = self._random
        files = {name: None if trees is None else list(trees) for name, trees in before.items()}
        places = [
            (trees, at)
            for trees in files.values()
            if trees
            for at, tree in enumerate(trees)
            if _is_policy(tree)
        ]
        for trees, at in places:
            if chance.random() < 0.5:
                trees[at] = self._turned(trees[at])
        if len(places) > 1 and chance.random() < 0.3:
            (one, at), (other, there) = chance.sample(places, 2)
            specs = one[at]["spec"], other[there]["spec"]
            if one[at]["kind"] == other[there]["kind"]:
                one[at], other[there] = (
                    {**one[at], "spec": specs[1]},
                    {**other[there], "spec": specs[0]},
                )
        return files

    def _turned(self, tree: Tree) -> Tree:
        spec = dict(tree["spec"])
        turns_action = tree["kind"] == "AuthorizationPolicy" and self._random.random() < 0.3
        if turns_action:
            spec["action"] = "ALLOW" if spec.get("action") == "DENY" else "DENY"
        elif spec.pop("selector", None) is None:
            spec["selector"] = {"matchLabels": self._objects.labels()}
        return {**tree, "spec": spec}

    def _edited(self, tree: Tree) -> Tree:
        """Another object of the same key."""
        make: dict[str, Callable[[], Tree]] = {
            "Pod": lambda: self._objects.pod("x"),
            "Service": self._objects.service,
            "EndpointSlice": self._objects.endpoint_slice,
            "AuthorizationPolicy": self._objects.authorization,
            "PeerAuthentication": self._objects.peers,
        }
        kind = tree.get("kind") if isinstance(tree, dict) else None
        if not isinstance(kind, str) or kind not in make:
            return tree
        meta, fresh = tree.get("metadata"), make[kind]()
        if isinstance(meta, dict):
            kept = {key: meta[key] for key in ("name", "namespace") if key in meta}
            fresh["metadata"] = {**fresh["metadata"], **kept}
        return fresh

    def _damage(self, files: Folder) -> dict[str, int]:
        names = [
            f"{tree['metadata']['namespace']}/{tree['metadata']['name']}"
            for trees in files.values()
            for tree in trees or ()
            if _is_authorization(tree)
            if isinstance(tree.get("metadata"), dict)
            if {"name", "namespace"} <= tree["metadata"].keys()
        ]
        return {
            each: self._random.randrange(1 << 16) for each in names if self._random.random() < 0.5
        }

    def _spoilt(self, tree: Any) -> Any:
        """A copy with one place that is not as it should be, or is odd."""
        if self._random.random() < 0.02:
            return copy.deepcopy(self._random.choice(ODD))
        tree = copy.deepcopy(tree)
        everywhere = places(tree)
        if not everywhere:
            return tree
        container, key = self._random.choice(everywhere)
        if container is tree and key == "kind" and self._random.random() < 0.9:
            return tree
        match self._random.randrange(4):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[f"{key}x"] = container.pop(key)
            case 2 if isinstance(container, dict):
                container["x"] = copy.deepcopy(self._random.choice(ODD))
            case _:
                container[key] = copy.deepcopy(self._random.choice(ODD))
        return tree

    # Calls

    def _calls_to(self, files: Folder) -> list[Call]:
        chance = self._random
        pods = [
            tree
            for trees in files.values()
            for tree in trees or ()
            if isinstance(tree, dict) and tree.get("kind") == "Pod"
        ]
        if not pods:
            return []
        return [self._call(chance.choice(pods)) for _ in range(self._calls)]

    def _call(self, pod: Tree) -> Call:
        chance = self._random
        meta = pod.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        to = chance.choice(POD_ADDRESSES)
        rare = chance.random() < 0.02  # the tunnel's port, and one that Istio's ztunnel keeps
        port = chance.choice((15008, 15006)) if rare else chance.choice(PORTS)
        where = (str(meta.get("namespace")), str(meta.get("name")))
        if chance.random() < 0.25:
            return Call(where, to, port, chance.choice(SOURCES))
        domain = self._options.trust_domain if chance.random() < 0.8 else chance.choice(DOMAINS)
        namespace = chance.choice((*NAMESPACES, *NAMESPACES, self._options.root))
        identity = (domain, namespace, chance.choice(ACCOUNTS))
        authority = self._authority(to, port)
        return Call(where, to, port, chance.choice(SOURCES), identity, authority)

    def _authority(self, to: str, port: int) -> str:
        chance = self._random
        match chance.randrange(24):
            case 0:
                return chance.choice(BAD_AUTHORITIES)
            case 1:
                to = chance.choice(POD_ADDRESSES)
            case 2 | 3:
                host = f"{chance.choice('st')}.{chance.choice(NAMESPACES)}.svc.cluster.local"
                return f"{chance.choice((host, host, host.upper()))}:{chance.choice((80, 81, 82))}"
        return f"[{to}]:{port}" if ":" in to else f"{to}:{port}"


def _is_policy(tree: Any) -> bool:
    return (
        isinstance(tree, dict)
        and tree.get("kind") in ("AuthorizationPolicy", "PeerAuthentication")
        and isinstance(tree.get("spec"), dict)
    )


def _is_authorization(tree: Any) -> bool:
    return isinstance(tree, dict) and tree.get("kind") == POLICIES[0]


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in a tree: its container and its key or index."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict):
            keys: Any = list(container)
        elif isinstance(container, list):
            keys = range(len(container))
        else:
            continue
        found += [(container, key) for key in keys]
        waiting += [container[key] for key in keys]
    return found
