"""The client side of delta xDS as a state machine: bytes in, requests out, no I/O.

One `DeltaClient` lives as long as its process and outlives its streams:

1. stream opened → send every request of `opening()`: one a type, with the versions we hold, so the
   server sends only what changed and tells us what is gone. To a server that takes sums (see
   `sums.py`) it has those of many; its question is an update without resources, and the answer to
   it has the versions that it asks for;
2. message arrived → `receive()` gives an `Update`; apply it, resource by resource;
3. then → send `acknowledge(type, nonce, rejected)`: an ACK, or a NACK that names what was refused.
   Only accepted resources are recorded as held: a refused one keeps its last good version here, so
   the server offers it again after a reconnect;
4. stream broken → back to 1. `synced` stays true: the last good state is still good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from google.protobuf.message import DecodeError

from control.kit.errors import ControlError, WireError
from control.wire import discovery_pb2 as pb
from control.wire import sums

# A server has one response of a type in flight; a few more are tolerated, a flood is a broken one.
UNACKNOWLEDGED_MAX = 16
# Names one on-demand client may ask for: far above the peers one node talks to.
SUBSCRIPTIONS_MAX = 65536
# A NACK is read by people; it must not grow with the number of bad resources.
ERROR_CHARS_MAX = 4096
INVALID_ARGUMENT = 3  # google.rpc.Code
# In the node's metadata of an opening: the client names all that it asks for. Without it, it has
# asked for whatever it holds, as the protocol says.
NAMES_KEY = "TULLE_NAMES"
# Initial metadata of a stream of ours: the number of addresses in the mesh.
SIZE_HEADER = "tulle-addresses"


class Word(Enum):
    """A response's word about the responses so far, in its `system_version_info`: with it, they are
    a state that the control plane has had; or more belongs to it. Other servers put something else
    there, and say neither."""

    WHOLE = "tulle/whole"
    MORE = "tulle/more"
    NONE = ""


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


class SubscriptionsFull(ControlError):
    reason = "subscriptions_full"


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """The client. `metadata` has NODE_NAME, CLUSTER_ID, NETWORK, …"""

    id: str
    cluster: str = ""
    metadata: Mapping[str, str] = field(default_factory=_nothing)

    def to_wire(self) -> pb.Node:
        node = pb.Node(id=self.id, cluster=self.cluster)
        node.metadata.update(dict(self.metadata))
        return node


@dataclass(frozen=True, slots=True)
class Added:
    """A new or changed resource: `resource` is the message's own bytes (`Any.value`)."""

    name: str
    version: str
    resource: bytes
    aliases: tuple[str, ...] = ()


class Update:
    """One response. Its resources are read one by one: those of a large one are 20 ms of work."""

    def __init__(self, response: pb.DeltaDiscoveryResponse, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._response = response
        self.type_url: str = response.type_url
        self.nonce: str = response.nonce
        self.removed = tuple(response.removed_resources)
        self.asked = sums.question_from_text(response.system_version_info)
        self.word = Word.MORE if self.asked is not None else _word(response.system_version_info)
        # Resources read so far: name → version; name → reason why it could not be read.
        self.versions: dict[str, str] = {}
        self.malformed: dict[str, str] = {}
        self.is_read = False

    def each(self) -> Iterator[Added]:
        """Yield everything new or changed while reading; `malformed` is complete after the last."""
        for each in self._response.resources:
            name = each.name
            if not name:
                self.malformed["(unnamed)"] = "a resource without name"
            elif each.resource.type_url != self.type_url:
                self.malformed[name] = f"type {each.resource.type_url!r}"
            else:
                self.versions[name] = each.version
                yield Added(name, each.version, each.resource.value, tuple(each.aliases))
        self.is_read = True

    @property
    def added(self) -> tuple[Added, ...]:
        """All of them at once."""
        return tuple(self.each())


def _word(text: str) -> Word:
    try:
        return Word(text)
    except ValueError:
        return Word.NONE


@dataclass(slots=True)
class _TypeState:
    on_demand: bool
    versions: dict[str, str] = field(default_factory=dict)
    subscribed: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)  # subscribed on this stream or the last
    unacknowledged: dict[str, Update] = field(default_factory=dict)  # nonce → update
    synced: bool = False
    awaits_question: bool = False  # the stream was opened with sums


class DeltaClient:
    """Wildcard for every type of `types`, except those in `on_demand`: these get what they name."""

    def __init__(
        self,
        node: NodeInfo,
        types: Iterable[str],
        on_demand: Iterable[str] = (),
        *,
        sums_from: int = sums.WORTH_ENTRIES,
    ) -> None:
        self._sums_from = sums_from
        self._node = node
        asked = set(on_demand)
        self._types = {url: _TypeState(url in asked) for url in types}
        self._takes_sums = False  # so the last response has said

    @property
    def synced(self) -> bool:
        """Every type had a first response which was acknowledged (perhaps in part)."""
        return all(state.synced for state in self._types.values())

    def held(self, type_url: str) -> Mapping[str, str]:
        """Name → version of everything accepted and not removed since."""
        return MappingProxyType(self._types[type_url].versions)

    def ask_by_name(self, type_url: str, *, on: bool) -> None:
        """Have the next stream ask for this type by name, or for all of it. No name is subscribed
        then; what is held stays so, and the server tells what it should not be."""
        state = self._types[type_url]
        state.on_demand = on
        state.subscribed.clear()
        state.unanswered.clear()

    def opening(self, types: Collection[str] | None = None) -> list[pb.DeltaDiscoveryRequest]:
        """The first requests of a new stream, for these types or all; nonces of the old one are
        forgotten. Names that wait for their answer are asked for once more: a server answers in an
        opening only if it has something that the client does not hold."""
        chosen = {url: each for url, each in self._types.items() if types is None or url in types}
        requests = [self._open(url, state) for url, state in chosen.items()]
        for url, state in chosen.items():
            if state.unanswered:
                requests.append(_asking(url, state.unanswered))
        return requests

    def _open(self, type_url: str, state: _TypeState) -> pb.DeltaDiscoveryRequest:
        state.unacknowledged.clear()
        request = pb.DeltaDiscoveryRequest(node=self._node.to_wire(), type_url=type_url)
        state.awaits_question = (
            self._takes_sums and not state.on_demand and len(state.versions) >= self._sums_from
        )
        if state.awaits_question:
            text = sums.sums_to_text(sums.sums_of(state.versions))
            request.node.metadata.fields[sums.SUMS_KEY].string_value = text
        else:
            request.initial_resource_versions.update(state.versions)
        if state.on_demand:
            # "*" subscribed and unsubscribed at once means: nothing yet.
            names = sorted(state.subscribed - state.unanswered)
            request.resource_names_subscribe.extend(["*", *names])
            request.resource_names_unsubscribe.append("*")
            request.node.metadata.fields[NAMES_KEY].string_value = "all"
        return request

    def receive(self, data: bytes) -> Update:
        """Read one response. WireError: the server is broken, drop the stream."""
        try:
            response = pb.DeltaDiscoveryResponse.FromString(data)
        except DecodeError as exc:
            raise WireError("not a delta discovery response") from exc
        state = self._types.get(response.type_url)
        if state is None:
            raise WireError(f"a response of a type nobody asked for: {response.type_url!r}")
        if not response.nonce or response.nonce in state.unacknowledged:
            raise WireError(f"a response without a fresh nonce: {response.nonce!r}")
        if len(state.unacknowledged) >= UNACKNOWLEDGED_MAX:
            raise WireError("too many responses before an acknowledgement")
        update = Update(response, len(data))
        self._takes_sums = response.control_plane.identifier == sums.TAKES_SUMS
        if (update.asked is not None) is not state.awaits_question:
            self._takes_sums = False  # what is gone would not be told
            raise WireError("sums without a question, or a question without sums")
        state.awaits_question = False
        state.unacknowledged[update.nonce] = update
        return update

    def acknowledge(
        self, type_url: str, nonce: str, rejected: Mapping[str, str] | None = None
    ) -> pb.DeltaDiscoveryRequest:
        """The answer to the update with this nonce. `rejected`: resource name → reason."""
        state = self._types[type_url]
        update = state.unacknowledged.pop(nonce)
        if update.asked is not None:
            held = sums.entries_in(state.versions, update.asked)
            return pb.DeltaDiscoveryRequest(
                type_url=type_url, response_nonce=nonce, initial_resource_versions=held
            )
        if not update.is_read:
            for _ in update.each():
                pass
        refused = {**update.malformed, **(rejected or {})}
        for name in update.removed:
            state.versions.pop(name, None)
        for name in refused:
            update.versions.pop(name, None)
        state.versions.update(update.versions)
        state.unanswered -= update.versions.keys()
        state.unanswered -= refused.keys()
        state.unanswered.difference_update(update.removed)
        state.synced = True
        request = pb.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
        if refused:
            reasons = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
            request.error_detail.code = INVALID_ARGUMENT
            request.error_detail.message = reasons[:ERROR_CHARS_MAX]
        return request

    def subscribe(self, type_url: str, names: Iterable[str]) -> pb.DeltaDiscoveryRequest | None:
        """Request for names of an on-demand type; None when all of them are subscribed already."""
        state = self._types[type_url]
        fresh = sorted(set(names) - state.subscribed)
        if len(state.subscribed) + len(fresh) > SUBSCRIPTIONS_MAX:
            raise SubscriptionsFull(f"more than {SUBSCRIPTIONS_MAX} names asked for")
        state.subscribed.update(fresh)
        state.unanswered.update(fresh)
        return _asking(type_url, fresh) if fresh else None

    def unsubscribe(self, type_url: str, names: Iterable[str]) -> pb.DeltaDiscoveryRequest | None:
        """Unsubscribe. Our control plane then removes what no other name leads to; others leave it
        here, and tell no more of it."""
        state = self._types[type_url]
        known = sorted(set(names) & state.subscribed)
        state.subscribed.difference_update(known)
        state.unanswered.difference_update(known)
        if not known:
            return None
        return pb.DeltaDiscoveryRequest(type_url=type_url, resource_names_unsubscribe=known)


def _asking(type_url: str, names: Iterable[str]) -> pb.DeltaDiscoveryRequest:
    return pb.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=sorted(names))
