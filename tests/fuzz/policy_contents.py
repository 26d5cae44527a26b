"""Objects of the policy model: a folder of YAML objects at one moment, and what is in force of it.

The first object of a key counts. One that cannot be understood leaves its last good version in
force; a policy that never was understood is replaced by one that denies. Shares no code with the
product.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from tests.fuzz import policy_form as form
from tests.fuzz.policy_form import Tree, open_mapping
from tests.fuzz.policy_found import POLICIES, Found, Key, look

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
# One folder at one moment: file → objects, or None for a file that is not even YAML.
Files = Mapping[str, list[Any] | None]


@dataclass(frozen=True)
class Options:
    """Settings of the mesh that policy depends on."""

    root: str = "istio-system"
    trust_domain: str = "cluster.local"
    dry_run: bool = False


@dataclass
class Authorization:
    """One AuthorizationPolicy in force. `rules` is None in a stand-in: nothing of it is known."""

    namespace: str
    name: str
    action: str  # ALLOW, DENY, CUSTOM, AUDIT, or "?" if that could not be read
    selector: dict[str, str]
    rules: list[Tree] | None
    has_targets: bool
    dry_run: bool

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass
class Peers:
    """One PeerAuthentication in force."""

    namespace: str
    selector: dict[str, str]
    mode: str
    ports: dict[int, str]
    age: tuple[bool, bool, str, str]  # sorts the one that counts first
    may_select: bool = False  # it could not be read whom it was for


@dataclass
class PodOf:
    """One pod that runs and can be reached."""

    namespace: str
    name: str
    account: str
    labels: dict[str, str]
    addresses: list[IpAddress]
    ports: dict[str, int]  # by name


@dataclass
class Objects:
    """Everything in force at one moment."""

    authorizations: dict[str, Authorization] = field(default_factory=dict)
    peers: list[Peers] = field(default_factory=list)
    pods: dict[tuple[str, str], PodOf] = field(default_factory=dict)
    services: list[Tree] = field(default_factory=list)
    slices: list[Tree] = field(default_factory=list)


class Contents:
    """One mesh over time: `load()` takes the whole content of its folder, again and again."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.problems: list[tuple[str, str]] = []  # kind and name of each policy with a problem
        self.now = Objects()
        self._before = Objects()
        self._files: dict[str, list[Any]] = {}
        self._good: dict[Key, Tree] = {}

    # From files to objects

    def load(self, files: Files) -> None:
        self.problems = []
        self._files = {
            name: trees if trees is not None else self._files[name]
            for name, trees in files.items()
            if trees is not None or name in self._files
        }
        good: dict[Key, Tree] = {}
        self._before, self.now = self.now, Objects()
        for found in self.first_of_each_key():
            key = found.key
            if found.complaint and found.said is not None:
                self._complain(found.said)
            if not found.complaint:
                good[key] = found.tree
                self._take(key, found.tree)
            elif (before := self.last_good(key)) is not None:
                good[key] = before
                self._take(key, before)
            elif key[0] in POLICIES:
                self.stand_in(key, found.tree)
        self._good = good

    def forget(self) -> None:
        """A control plane that restarts remembers no version of anything."""
        self._files, self._good = {}, {}

    def first_of_each_key(self) -> Iterable[Found]:
        """The first object of a key counts, in the order of file names; another is a problem. One
        whose key is a guess comes last, under a name of its own if the key is another's."""
        seen: set[Key] = set()
        there: set[str] = set()
        guesses: list[tuple[Found, str]] = []
        for file in sorted(self._files):
            for position, tree in enumerate(self._files[file]):
                found = look(tree, f"{file} {position}")
                if found is None:
                    continue
                kind, namespace, name = found.key
                there.add(name if kind == "Namespace" else namespace)
                if found.is_guess:
                    guesses.append((found, f"{file} {position}"))
                    continue
                if found.key in seen:
                    self._complain(found.key)
                    continue
                seen.add(found.key)
                yield found
        for found, place in guesses:
            for number, each in enumerate(self.everywhere(found, there)):
                kind, namespace, _ = each.key
                key = each.key
                if key in seen:
                    key = (kind, namespace, f"unnamed {place} {number}")
                seen.add(key)
                yield replace(each, key=key, said=key if found.unplaced is None else each.said)

    def everywhere(self, found: Found, there: set[str]) -> list[Found]:
        """A policy whose namespace is no name: in those that its words name, else in all."""
        if found.unplaced is None:
            return [found]
        words = set(re.findall(r"[a-z0-9][-a-z0-9.]*", str(found.unplaced).lower()))
        kind, _, name = found.key
        places = sorted((there & words or there) - {""})
        return [
            replace(found, key=(kind, each, name), said=found.said if number == 0 else None)
            for number, each in enumerate(places)
        ]

    def last_good(self, key: Key) -> Tree | None:
        """The version that stays in force while a key has one that cannot be understood."""
        return self._good.get(key)

    def _complain(self, key: Key) -> None:
        if key[0] in POLICIES:
            name = "unnamed" if key[2].startswith("unnamed") else f"{key[1]}/{key[2]}"
            self.problems.append((key[0], name))

    def _take(self, key: Key, tree: Tree) -> None:
        kind, namespace, name = key
        meta, spec = tree["metadata"], tree.get("spec") or {}
        match kind:
            case "AuthorizationPolicy":
                policy = Authorization(
                    namespace=namespace,
                    name=name,
                    action=spec.get("action") or "ALLOW",
                    selector=form.labels_of(spec),
                    rules=spec.get("rules") or [],
                    has_targets=form.has_targets(spec),
                    dry_run=_is_dry_run(meta),
                )
                self.now.authorizations[policy.key] = policy
            case "PeerAuthentication":
                self.now.peers.append(self._peers(namespace, name, meta, spec))
            case "Service":
                self.now.services.append(tree)
            case "EndpointSlice":
                self.now.slices.append(tree)
            case "Pod":
                pod = _pod(namespace, name, tree)
                if pod is not None:
                    self.now.pods[namespace, name] = pod

    def _peers(self, namespace: str, name: str, meta: Tree, spec: Tree) -> Peers:
        created = meta.get("creationTimestamp") or ""
        return Peers(
            namespace=namespace,
            selector=form.labels_of(spec),
            mode=_mode(spec.get("mtls")),
            ports={
                int(number): _mode(mtls)
                for number, mtls in (spec.get("portLevelMtls") or {}).items()
            },
            age=(True, not created, created, name),
        )

    def stand_in(self, key: Key, tree: Tree) -> None:
        """Put what denies in the place of a policy that never was understood.

        What can still be read of it counts, so that the effect stays where the author meant it: a
        good selector narrows it, an action for others or a dry run makes it nobody's business here.
        """
        kind, namespace, name = key
        spec = tree.get("spec") if isinstance(tree.get("spec"), dict) else {}
        chosen = {} if form.selector(spec.get("selector") or {}) else form.labels_of(spec)
        if kind == "PeerAuthentication":
            peers = Peers(namespace, chosen, "STRICT", {}, (False, True, "", name))
            peers.may_select = not chosen and not self.is_without_selector(tree)
            self.now.peers.append(peers)
            return
        action = spec.get("action")
        known = not form.action(action) if action is not None else self.says_all(tree)
        policy = Authorization(
            namespace=namespace,
            name=name,
            action=(action or "ALLOW") if known else "?",
            selector=chosen,
            rules=None,
            has_targets=self.targets_only(spec),
            dry_run=_is_dry_run(tree.get("metadata")),
        )
        self.now.authorizations[policy.key] = policy

    def says_all(self, tree: Tree) -> bool:
        """True if a policy without an action has none elsewhere, under a name that nobody knows."""
        spec = tree.get("spec")
        if spec is None:
            return bool(tree) and not (tree.keys() - form.TOP)
        return isinstance(spec, dict) and not (spec.keys() - form.SPEC.keys())

    def is_without_selector(self, tree: Tree) -> bool:
        """True for what could not be understood, but surely was for all of its namespace."""
        spec = tree.get("spec")
        if spec is None:
            return bool(tree) and not (tree.keys() - form.TOP)
        if not isinstance(spec, dict) or spec.keys() - form.PEER_SPEC.keys():
            return False
        selector = spec.get("selector")
        return selector is None or not form.selector(selector)

    def targets_only(self, spec: Tree) -> bool:
        """True if a policy that cannot be understood is surely one for waypoints."""
        known = {"targetRef": form.target, "targetRefs": form.targets, "selector": form.selector}
        complaint = open_mapping(known)(spec)
        return not complaint and form.has_targets(spec) and not form.labels_of(spec)


@cache
def canonical(value: str) -> IpAddress:
    """An address of IPv4 that is written as one of IPv6 is the one of IPv4."""
    address = ipaddress.ip_address(value)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _mode(mtls: Tree | None) -> str:
    return (mtls or {}).get("mode") or "UNSET"


def _is_dry_run(meta: Any) -> bool:
    annotations = meta.get("annotations") if isinstance(meta, dict) else None
    if annotations is None or form.texts_by_name(annotations):
        return False
    return annotations.get("istio.io/dry-run") == "true"


def _pod(namespace: str, name: str, tree: Tree) -> PodOf | None:
    """None for one that has ended, or has no address."""
    spec, status = tree.get("spec") or {}, tree.get("status") or {}
    texts = [each["ip"] for each in status.get("podIPs") or []]
    if not texts and status.get("podIP"):
        texts = [status["podIP"]]
    if not texts or status.get("phase") in ("Succeeded", "Failed"):
        return None
    labels = tree["metadata"].get("labels") or {}
    first = spec.get("initContainers") or []
    sidecars = [each for each in first if each.get("restartPolicy") == "Always"]
    containers = [*(spec.get("containers") or []), *sidecars]
    ports = [port for each in containers for port in each.get("ports") or []]
    return PodOf(
        namespace=namespace,
        name=name,
        account=spec.get("serviceAccountName") or spec.get("serviceAccount") or "default",
        labels={key: value or "" for key, value in labels.items()},
        addresses=[canonical(each) for each in texts],
        ports={port.get("name") or "": port["containerPort"] for port in reversed(ports)},
    )
