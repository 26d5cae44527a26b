"""One client's delta xDS stream as a state machine, without I/O: requests in, responses out.

Invariants. Of each type at most one response is unacknowledged; what changes meanwhile is a set of
names, so a slow client costs memory bounded by the number of resources and never holds up another.
A response is built from the cache when it is taken, so it is as new as it can be. A policy is sent
before an address that may name it, and its removal after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control.kit.errors import WireError
from control.server.callers.refusals import CallRefusal
from control.server.xds.cache import Cache, CachedResource, Change
from control.server.xds.holding import Holding
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE, POD_TYPE

# Far below the 200 MiB that clients take, far above any real mesh. It is not smaller because a
# client calls itself synced after its first response: that one should be whole.
RESPONSE_BYTES_MAX = 64 * 1024 * 1024
ASKED_MAX = 65536  # names one client may subscribe to; as many as our own client sends
# Longer than any name there is: a host name of 253 letters, a namespace and a kind.
NAME_CHARS_MAX = 1024
# Types that we do not serve stay open, empty: clients ask for types of later versions, a few.
FOREIGN_TYPES_MAX = 8
TYPE_CHARS_MAX = 256
NAME_COST_BYTES = 200  # a name that is kept takes, beside its letters
WILDCARD = "*"
# Versions that a client has for itself, before it shares a table with others.
OWN_MAX = 64
CHEAP_MAX = 256  # names; less than a tenth of a millisecond
_SHOWN_TO_ALL = frozenset({AUTHORIZATION_TYPE, ADDRESS_TYPE})
# Policies first. Their removals are held back until addresses are out; see `_withhold`.
ORDER = (AUTHORIZATION_TYPE, ADDRESS_TYPE, POD_TYPE, NAMESPACE_TYPE)


# In `TypeState.known`, in place of versions that are not the current ones.
_OLD = "-"  # there is such a resource, in another version
_FOREIGN = ""  # there is none: the client will be told


class BadRequest(WireError):
    """A request that asks for more than one stream may have."""

    def __init__(self, why: CallRefusal, detail: str) -> None:
        super().__init__(detail)
        self.why = why


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Answer of a client to the response in flight; `error` is empty for an ACK."""

    type_url: str
    nonce: str
    error: str


@dataclass(frozen=True, slots=True)
class DeltaResponse:
    data: bytes
    type_url: str
    nonce: str
    added: int
    removed: int


@dataclass(slots=True)
class TypeState:
    """Resources of one type that a client wants and has."""

    wildcard: bool
    asked: set[str] = field(default_factory=set)
    known: Holding = field(default_factory=Holding)  # name → version the client was sent
    dirty: set[str] = field(default_factory=set)  # names to look at for the next response
    owed: set[str] = field(default_factory=set)  # asked names that must be answered
    wanted: set[str] = field(default_factory=set)  # what `asked` resolves to
    stale: bool = False  # the cache has changed since `wanted` was resolved
    in_flight: str = ""
    answered: bool = False  # the first response went out, even if empty
    acked: str = ""
    nacked: str = ""
    nacks: int = 0


class DeltaSession:
    def __init__(
        self, cache: Cache, node: str, response_bytes_max: int = RESPONSE_BYTES_MAX
    ) -> None:
        self._cache = cache
        self._response_bytes_max = response_bytes_max
        self._node = node
        self._types: dict[str, TypeState] = {}
        self._nonce = 0
        # Memory that this client's own names take: those asked for, and those that nobody has.
        self.names_bytes = 0

    @property
    def types(self) -> dict[str, TypeState]:
        return self._types

    def receive(self, request: pb.DeltaDiscoveryRequest) -> Acknowledged | None:
        """Take one request in. Types we do not serve are open but stay empty. Raises WireError."""
        state = self._types.get(request.type_url)
        if state is None:
            self._open(request)
            return None
        noted = self._acknowledge(state, request)
        if request.resource_names_subscribe or request.resource_names_unsubscribe:
            self._resubscribe(request.type_url, state, request)
        return noted

    def _open(self, request: pb.DeltaDiscoveryRequest) -> None:
        if request.type_url not in self._cache.types:
            self._open_foreign(request.type_url)
            return
        subscribed = set(request.resource_names_subscribe)
        returned = set(request.resource_names_unsubscribe)
        wildcard = not subscribed or (WILDCARD in subscribed and WILDCARD not in returned)
        state = TypeState(
            # Only addresses come on demand: half of the policies would be worse than none.
            wildcard=wildcard or request.type_url != ADDRESS_TYPE,
            known=self._known(request),
        )
        self._types[request.type_url] = state
        if state.wildcard:
            state.dirty.update(self._entries(request.type_url), state.known)
            return
        # A returning client has asked before for everything that it holds.
        self._ask(state, (subscribed | state.known.keys()) - returned - {WILDCARD})
        for name in subscribed & state.asked:
            if not self._holds(state, name):
                state.owed.add(name)
        self._want(state)

    def _open_foreign(self, type_url: str) -> None:
        if len(type_url) > TYPE_CHARS_MAX:
            raise BadRequest(CallRefusal.BAD_NAME, "a type URL is too long")
        if len(self._types.keys() - self._cache.types) >= FOREIGN_TYPES_MAX:
            raise BadRequest(
                CallRefusal.TOO_MANY_TYPES,
                f"over {FOREIGN_TYPES_MAX} types that we do not serve",
            )
        self._types[type_url] = TypeState(wildcard=True)

    def _known(self, request: pb.DeltaDiscoveryRequest) -> Holding:
        """The names that a returning client holds. Names and versions are the cache's own, so they
        take no more memory than those of a client that was sent everything."""
        entries = self._entries(request.type_url)
        known = {}
        for name, version in request.initial_resource_versions.items():
            entry = entries.get(name)
            if entry is None:
                self._keep(name)
                known[name] = _FOREIGN
            else:
                known[entry.name] = entry.version if version == entry.version else _OLD
        return Holding(known)

    def _keep(self, name: str) -> None:
        if len(name) > NAME_CHARS_MAX:
            raise BadRequest(CallRefusal.BAD_NAME, "a resource's name is too long")
        self.names_bytes += NAME_COST_BYTES + len(name)

    def _release(self, name: str) -> None:
        self.names_bytes -= NAME_COST_BYTES + len(name)

    def _forget(self, state: TypeState, name: str) -> None:
        """The client does not hold it any more."""
        if state.known.pop(name, None) == _FOREIGN:
            self._release(name)

    def _holds(self, state: TypeState, asked: str) -> bool:
        entries = self._entries(ADDRESS_TYPE)
        names = self._cache.resolve(asked)
        return bool(names) and all(state.known.get(n) == entries[n].version for n in names)

    def _acknowledge(
        self, state: TypeState, request: pb.DeltaDiscoveryRequest
    ) -> Acknowledged | None:
        """Only the nonce in flight counts; any other is from the past and is passed over."""
        if not request.response_nonce or request.response_nonce != state.in_flight:
            return None
        nonce, state.in_flight = state.in_flight, ""
        error = ""
        if request.HasField("error_detail"):
            error = request.error_detail.message or "rejected without a reason"
            state.nacked = nonce
            state.nacks += 1
        else:
            state.acked = nonce
        return Acknowledged(request.type_url, nonce, error)

    def _resubscribe(
        self, type_url: str, state: TypeState, request: pb.DeltaDiscoveryRequest
    ) -> None:
        if type_url != ADDRESS_TYPE:
            return
        subscribed = set(request.resource_names_subscribe)
        returned = set(request.resource_names_unsubscribe)
        if WILDCARD in subscribed and WILDCARD not in returned and not state.wildcard:
            state.wildcard = True
            state.dirty.update(self._entries(type_url))
        elif WILDCARD in returned:
            state.wildcard = False
        if state.wildcard:
            return
        fresh = subscribed - returned - {WILDCARD}
        self._ask(state, fresh)
        for name in returned & state.asked:
            state.asked.discard(name)
            state.owed.discard(name)
            self._release(name)
            state.stale = True
        state.owed |= fresh
        for name in fresh:  # asked again: answered again
            for resolved in self._cache.resolve(name):
                self._forget(state, resolved)
                state.wanted.add(resolved)
                state.dirty.add(resolved)
        if not returned:
            return
        self._want(state)
        for name in state.known.keys() - state.wanted:  # unsubscribed: no removal is sent
            self._forget(state, name)

    def _ask(self, state: TypeState, names: Iterable[str]) -> None:
        for name in names:
            if name not in state.asked:
                self._keep(name)
                state.asked.add(name)
        if len(state.asked) > ASKED_MAX:
            raise BadRequest(CallRefusal.TOO_MANY_NAMES, f"more than {ASKED_MAX} names subscribed")

    def _want(self, state: TypeState) -> None:
        """Resolve all subscribed names again. A node's own workloads are wanted unasked: its
        ztunnel waits for them before it serves a pod, and does not know their names."""
        wanted = set(self._cache.index().on_node.get(self._node, ()))
        for name in state.asked:
            wanted.update(self._cache.resolve(name))
        state.wanted, state.stale = wanted, False
        state.dirty |= wanted | state.known.keys()

    def changed(self, change: Change) -> None:
        """The cache has news. Costs one set union for a wildcard client."""
        for type_url, names in change.items():
            state = self._types.get(type_url)
            if state is None:
                continue
            if state.wildcard:
                state.dirty |= names
            else:
                state.stale = True  # resolved when it can be sent: once, whatever comes until then

    def estimate_bytes(self) -> int:
        """About the size of the next response, before anything is built."""
        largest = 0
        for type_url, state in self._types.items():
            if not state.in_flight:
                count = len(state.wanted | state.dirty) if state.stale else len(state.dirty)
                largest = max(largest, count * self._cache.average_bytes(type_url))
        return min(largest, self._response_bytes_max)

    @property
    def is_cheap(self) -> bool:
        """True if building a small response takes no time worth a turn: few names are asked for,
        and few have to be looked at."""
        return all(
            len(each.asked) + len(each.dirty) + len(each.wanted) < CHEAP_MAX
            for each in self._types.values()
        )

    def take(self) -> DeltaResponse | None:
        """The next response to send, if there is one. Call until None."""
        for type_url in [*ORDER, *(self._types.keys() - set(ORDER))]:
            state = self._types.get(type_url)
            if state is None or state.in_flight:
                continue
            added, removed = self._due(type_url, state)
            added, removed = self._withhold(type_url, added, removed)
            if added or removed or state.owed or not state.answered:
                if type_url == ADDRESS_TYPE and self._policies_wait():
                    continue
                return self._respond(type_url, state, added, removed)
        return None

    def _due(self, type_url: str, state: TypeState) -> tuple[list[CachedResource], list[str]]:
        """Differences between cache and client. Names without one are no longer dirty."""
        if state.stale and not state.wildcard:
            self._want(state)
        entries = self._entries(type_url)
        added, removed = [], []
        for name in sorted(state.dirty):
            entry = entries.get(name)
            if entry is not None and not self._is_visible(type_url, state, entry):
                entry = None
            if entry is None and name in state.known:
                removed.append(name)
            elif entry is not None and state.known.get(name) != entry.version:
                added.append(entry)
            else:
                state.dirty.discard(name)
        if not state.dirty:
            state.dirty = set()  # an emptied one keeps the room of all it has ever held
            self._share(type_url, state)
        return added, removed

    def _share(self, type_url: str, state: TypeState) -> None:
        """With nothing to send, a client of all resources holds them as they are."""
        if not state.wildcard or type_url not in _SHOWN_TO_ALL:
            return
        entries = self._entries(type_url)
        if state.known.own_count > OWN_MAX and len(state.known) == len(entries):
            state.known.share(self._cache.versions(type_url))

    def _is_visible(self, type_url: str, state: TypeState, entry: CachedResource) -> bool:
        if type_url == POD_TYPE:
            return entry.node == self._node
        return state.wildcard or entry.name in state.wanted

    def _withhold(
        self, type_url: str, added: list[CachedResource], removed: list[str]
    ) -> tuple[list[CachedResource], list[str]]:
        """Removed policies wait for the addresses that stop naming them."""
        if type_url != AUTHORIZATION_TYPE or not removed:
            return added, removed
        address = self._types.get(ADDRESS_TYPE)
        if address is None:
            return added, removed
        waiting, _ = self._due(ADDRESS_TYPE, address)
        return added, ([] if waiting else removed)

    def _policies_wait(self) -> bool:
        """New policies are there that this client was not sent: addresses must not overtake."""
        state = self._types.get(AUTHORIZATION_TYPE)
        return state is not None and bool(self._due(AUTHORIZATION_TYPE, state)[0])

    def _respond(
        self, type_url: str, state: TypeState, added: list[CachedResource], removed: list[str]
    ) -> DeltaResponse:
        pieces: list[bytes] = []
        size_bytes = 0
        for entry in added:
            framed = entry.framed if state.wildcard else entry.framed_with_aliases()
            if pieces and size_bytes + len(framed) > self._response_bytes_max:
                break  # the rest stays dirty, and follows the acknowledgement
            pieces.append(framed)
            size_bytes += len(framed)
            self._forget(state, entry.name)
            state.known[entry.name] = entry.version
            state.dirty.discard(entry.name)
        for name in removed:
            self._forget(state, name)
            state.dirty.discard(name)
        if len(pieces) == len(added):
            removed = removed + sorted(self._answered_as_removed(state) - set(removed))
            state.owed.clear()
        self._nonce += 1
        nonce = str(self._nonce)
        state.in_flight, state.answered = nonce, True
        head = pb.DeltaDiscoveryResponse(
            system_version_info=(Word.WHOLE if self._is_whole() else Word.MORE).value,
            type_url=type_url,
            nonce=nonce,
            removed_resources=removed,
            control_plane=pb.ControlPlane(identifier="tulle-control"),
        ).SerializeToString()
        # Fields of a message may come in any order: the spliced ones follow the small ones.
        return DeltaResponse(b"".join([head, *pieces]), type_url, nonce, len(pieces), len(removed))

    def _is_whole(self) -> bool:
        """True if the client's policies and addresses are those of one moment, once it has applied
        everything that was sent."""
        for type_url in (AUTHORIZATION_TYPE, ADDRESS_TYPE):
            state = self._types.get(type_url)
            if state is None or not state.answered or any(self._due(type_url, state)):
                return False
        return True

    def _answered_as_removed(self, state: TypeState) -> set[str]:
        """Owed names that no resource bears: nothing has them, or somebody has them as an alias.

        Istio's ztunnel wakes a waiting connection by the very name it asked for, which it finds
        among the resources' names and the removed ones; it reads no aliases. It takes the resources
        in first, and a removed name that none of them bears removes nothing.
        """
        entries = self._entries(ADDRESS_TYPE)
        return {each for each in state.owed if each not in entries}  # not as large as the mesh

    def _entries(self, type_url: str) -> Mapping[str, CachedResource]:
        return self._cache.entries(type_url) if type_url in self._cache.types else {}
