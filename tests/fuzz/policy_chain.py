"""The product from end to end, without its sockets: text of manifests in, answers to calls out.

folder → compile → cache → delta xDS, as bytes → the supervisor's state → entries, as bytes → the
worker's state → `authorize`. `step()` may damage policies on their way to the node.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import yaml

from control.model.address import Endpoint, parse_address
from control.model.identity import parse_spiffe_id
from control.model.policy import Policy
from control.model.workload import Workload
from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.settings import Settings
from control.server.sources.folder import Folder
from control.server.sources.problem import Problem
from control.server.xds.cache import Cache
from control.server.xds.node_view import NodeView
from control.server.xds.session import DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.delta import DeltaClient, NodeInfo, Update
from control.wire.types import AUTHORIZATION_TYPE
from tests.fuzz.policy_contents import Files, Options
from tests.fuzz.policy_found import POLICIES
from tests.fuzz.policy_model import Call
from ztunnel.mesh.authorize import Admit, admit_connect, admit_plaintext, recheck
from ztunnel.mesh.entries import Entry, Op, chunks, decode_entries, encode_entries
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason
from ztunnel.supervisor.settling import Settling
from ztunnel.supervisor.xds import TYPES, accept, entries_of

NODE = "n1"
NOT_YAML = b"[[[ {"
Damage = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Answer:
    """The product's side of `Expected`; `named` is None where no policy was the reason."""

    status: int
    port: int = 0
    named: str | None = None
    would_deny: bool = False


class Chain:
    """One control plane, one node, over any number of steps."""

    def __init__(self, options: Options, make_node: type[Node] | None = None) -> None:
        self._settings = Settings(
            trust_domain=options.trust_domain,
            root_namespace=options.root,
            dry_run_policies=options.dry_run,
        )
        self.restart()
        self._node = (make_node or Node)(self._cache)
        self._problems: tuple[Problem, ...] = ()
        self._others: dict[str, State] | None = None  # for this step

    @property
    def worker(self) -> State:
        return self._node.worker

    def watch(self, look: Callable[[], None] | None, order: random.Random | None = None) -> None:
        """Call `look` after each entry that the worker takes, which then come one by one. With
        `order` they come in any, as from a control plane that is not ours."""
        self._node.look, self._node.order = look, order

    def reconnect(self) -> None:
        """The node's stream breaks, and a new one opens."""
        self._node.open(self._cache)

    def restart(self) -> None:
        """A new control plane, which has not seen the folder yet."""
        self._folder, self._cache = Folder(), Cache()
        self._mesh = Mesh(self._settings, KnownCaptures(frozenset()))

    def step(self, files: Mapping[str, bytes | None], damage: Mapping[str, Damage]) -> set[str]:
        """Apply changed files (None: it is gone). Returns the policies that were damaged."""
        for file, data in files.items():
            if data is None:
                self._folder.forget(file)
            else:
                self._folder.load(file, data)
        snapshot = self._folder.snapshot()
        self._problems, self._others = snapshot.problems, None
        change = self._cache.apply(self._mesh.apply(snapshot.changed))
        if self._node.cache is not self._cache:
            self._node.open(self._cache)
        return self._node.take(change, damage)

    def policy_problems(self) -> list[tuple[str, str]]:
        """Kind and name of each policy that has a problem."""
        words = [each.object.partition(" ") for each in self._problems]
        return [
            (kind, "unnamed" if "/unnamed-" in name else name)
            for kind, _, name in words
            if kind in POLICIES
        ]

    def others(self, *, fresh: bool) -> dict[str, State]:
        """States that have to equal the worker's, reached in other ways. A fresh one knows no last
        good versions."""
        if self._others is None:
            self._others = {
                "the supervisor's": self._node.supervisor,
                "a new worker's": _fed(self._node.supervisor.snapshot()),
            }
            if fresh:
                node = Node(self._cache)
                node.take({}, {})
                self._others["a new node's"] = node.worker
        return self._others

    def ask(self, call: Call, local: Workload) -> Answer:
        """One connection, decided as the ztunnel decides it."""
        source, to = _address(call.source), _address(call.to)
        if call.identity is None:
            peer = None
            found = admit_plaintext(self.worker, local, Endpoint(to, call.port), source)
        else:
            peer = parse_spiffe_id("spiffe://{}/ns/{}/sa/{}".format(*call.identity))
            accepted = Endpoint(to, 15008)
            found = admit_connect(self.worker, local, accepted, call.authority, peer, source)
        if isinstance(found, Admit):
            policy = found.permit.policy
            again = recheck(self.worker, local, found.permit.connection)
            status = 200 if again == found.permit else 0  # 0: an open connection would be cut
            return Answer(status, found.target.port, policy, found.would_deny is not None)
        if found.reason is not Reason.POLICY:
            return Answer(found.status)
        named = found.detail.partition("explicitly denied by: ")[2]
        return Answer(found.status, named=named or None)


class Node:
    """One node's side of delta xDS, and the states of its supervisor and of a worker."""

    def __init__(self, cache: Cache) -> None:
        self.supervisor = State(node=NODE, strict=True)
        self.worker = State(node=NODE)
        self.look: Callable[[], None] | None = None
        self.order: random.Random | None = None
        self._damage: Mapping[str, Damage] = {}
        self._damaged: set[str] = set()
        self._client = DeltaClient(NodeInfo(NODE), TYPES)
        self._settling = Settling(TYPES)
        self.open(cache)

    def open(self, cache: Cache) -> None:
        """A new stream; the client says what it holds."""
        self.cache = cache
        self._session = DeltaSession(NodeView(cache, NODE))
        self._settling.opened(0.0)
        for request in self._client.opening():
            self._session.receive(pb.DeltaDiscoveryRequest.FromString(request.SerializeToString()))

    def take(self, change: Mapping[str, frozenset[str]], damage: Mapping[str, Damage]) -> set[str]:
        """Follow the stream until it is quiet. Returns the policies that were damaged."""
        self._damage, self._damaged = damage, set()
        self._session.changed(change)
        held: list[Entry] = []
        while (response := self._session.take()) is not None:
            data = response.data
            if response.type_url == AUTHORIZATION_TYPE:
                data = self._arrived(data)
            update = self._client.receive(data)
            entries, rejected = list(entries_of(update)), {}
            if self.order is None:
                entries, rejected = accept(self.supervisor, entries)
                self.to_worker(entries)
            else:
                held += entries
            answer = self._client.acknowledge(update.type_url, update.nonce, rejected)
            self._settle(update)
            self._session.receive(pb.DeltaDiscoveryRequest.FromString(answer.SerializeToString()))
        if self.order is not None:
            self._take_in_any_order(held, self.order)
        if not self.supervisor.synced:
            self.to_worker(accept(self.supervisor, [Entry(Op.SNAPSHOT)])[0])
        return self._damaged

    def _take_in_any_order(self, entries: list[Entry], order: random.Random) -> None:
        """One by one, each resource's own in order; then all is settled."""
        lanes: dict[str, list[Entry]] = {}
        for entry in entries:
            lanes.setdefault(entry.name, []).append(entry)
        while lanes:
            name = order.choice(list(lanes))
            self.to_worker(accept(self.supervisor, [lanes[name].pop(0)])[0])
            if not lanes[name]:
                del lanes[name]
        self.to_worker(accept(self.supervisor, [Entry(Op.SNAPSHOT)])[0])

    def _settle(self, update: Update) -> None:
        op = self._settling.applied(
            self._settling.number(),
            update.type_url,
            update.word,
            0.0,
            settled=self.supervisor.settled,
        )
        if op is not None:
            self.to_worker(accept(self.supervisor, [Entry(op)])[0])

    def _arrived(self, data: bytes) -> bytes:
        """A response of policies, as it arrives: the very same bytes unless one was changed."""
        message = pb.DeltaDiscoveryResponse.FromString(data)
        same = True
        for each in message.resources:
            raw = self.on_the_wire(each.name, each.resource.value)
            same = same and raw == each.resource.value
            each.resource.value = raw
        return data if same else message.SerializeToString()

    def on_the_wire(self, name: str, raw: bytes) -> bytes:
        damage = self._damage.get(name)
        if damage is None:
            return raw
        self._damaged.add(name)
        return damage(raw)

    def to_worker(self, entries: Iterable[Entry]) -> None:
        if self.look is None:
            for payload in chunks(entries):
                self.worker.apply(decode_entries(payload))
            return
        for entry in entries:
            self.worker.apply(decode_entries(encode_entries([entry])))
            self.look()


_address = cache(parse_address)  # few texts, many calls


def _fed(entries: Iterable[Entry]) -> State:
    state = State(node=NODE)
    for payload in chunks(entries):
        state.apply(decode_entries(payload))
    return state


def policies_of(state: State, local: Workload) -> frozenset[Policy]:
    return frozenset(state.policies_for(local))


def texts(files: Files, before: Files) -> dict[str, bytes | None]:
    """Contents to write when a folder changes from `before`; None for a file that goes."""
    gone: dict[str, bytes | None] = {name: None for name in before if name not in files}
    changed = {
        name: manifest(trees)
        for name, trees in files.items()
        if name not in before or before[name] != trees
    }
    return {**gone, **changed}


def manifest(trees: list[object] | None) -> bytes:
    """One file: documents of JSON, or of YAML in its block style, or one list of Kubernetes."""
    if trees is None:
        return NOT_YAML
    documents = "\n---\n".join(json.dumps(each) for each in trees).encode()
    match zlib.crc32(documents) % 8:
        case 0:
            return yaml.dump_all(trees, Dumper=yaml.CSafeDumper).encode()
        case 1:
            return json.dumps({"apiVersion": "v1", "kind": "List", "items": trees}).encode()
    return documents
