"""Callers while the API server is away: what it said before, kept in memory and on disk.

It is asked every minute for the keys of its tokens, which shows as well that it is there. While it
is not, kubelets get no new tokens for their pods, and afterwards they renew them one by one. So a
token that was good when it was heard last stays good until some minutes after it is heard again,
within a bound: one that it vouched for, or that its keys prove.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from control.kit.clock import Clock
from control.kit.errors import ConfigError, MeshError
from control.kit.files import write_atomic
from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import nobody_answers
from control.server.callers.accounts import BoundPod, NodeAccounts
from control.server.callers.issuer import IssuerKeys, Jwk, proved
from control.server.callers.speakers import account_of
from control.server.callers.tokens import Caller

log = logging.getLogger("access")

NAME: Final = "known-tokens.json"  # in the state folder
ASK_EVERY_S: Final = 60.0
AWAY_EVERY_S: Final = 2.0
SAVE_EVERY_S: Final = 30.0
# Longer than any repair of a control plane; a stolen token is good for as long at most.
OUTAGE_S_MAX: Final = 7 * 86400.0
# Kubelets look at their pods' tokens each minute or so: up to 112 s were seen after an outage.
RENEWAL_S: Final = 300.0
# A caller of an outage shows its token again after that.
LENT_S: Final = 600.0
GOOD_TOKENS_MAX: Final = 32_768  # two a node and as many new ones, for 8,192 nodes: 10 MiB
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_JWKS: Final = "/openid/v1/jwks"
_KEY_SET: Final = "application/jwk-set+json"  # the only one that it is given out as
_CONFIGURATION: Final = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A good token: `fresh_until` on the monotonic clock, `expires_s` on the wall's."""

    caller: Caller
    fresh_until: float
    expires_s: float


class _SavedToken(msgspec.Struct, array_like=True):
    mark: str
    node: str
    subject: str
    issued_s: int
    expires_s: float


class _SavedCallers(msgspec.Struct):
    origin: str
    heard_s: float
    keys: IssuerKeys
    tokens: list[_SavedToken]


class _Configuration(msgspec.Struct):
    issuer: str = ""


class _KeySet(msgspec.Struct):
    keys: list[Jwk] = []


class KnownCallers:
    """`origin` is the cluster. `node_of(pod)` names a pod's node by the objects in force."""

    def __init__(
        self,
        path: Path,
        origin: str,
        accounts: NodeAccounts,
        node_of: Callable[[BoundPod], str],
        clock: Clock,
    ) -> None:
        self._path = path
        self._origin = origin
        self._accounts = accounts
        self._node_of = node_of
        self._clock = clock
        self._good: OrderedDict[str, KnownToken] = OrderedDict()
        self._keys = IssuerKeys()
        # By the wall clock, since it goes on over a restart, and by the one that nobody sets.
        self._heard_s, self._heard_at_s = 0.0, -math.inf
        self._is_away = False
        self._renewal_from_s = 0.0  # tokens that ended since then, by the wall clock,
        self._renewal_until_s = -math.inf  # are good until then, by the other one
        self._is_changed = False
        self._told = ""  # the reason that there are no keys for, once
        self._load()

    def get(self, mark: str) -> KnownToken | None:
        return self._good.get(mark)

    def put(self, mark: str, known: KnownToken) -> None:
        self._is_changed = self._is_changed or mark not in self._good
        self._good[mark] = known
        self._good.move_to_end(mark)
        if len(self._good) > GOOD_TOKENS_MAX:
            self._good.popitem(last=False)

    def drop(self, mark: str) -> None:
        self._is_changed = self._good.pop(mark, None) is not None or self._is_changed

    @property
    def expired_s(self) -> float:
        """Tokens that ended by then are over: now, or when the API server was heard last."""
        if self._is_away and self._silent_s() <= OUTAGE_S_MAX:
            return self._heard_s
        return self._renewal_from_s if self._is_renewing() else self._now_s()

    def _silent_s(self) -> float:
        """Seconds since the API server was heard."""
        return self._clock.monotonic_s() - self._heard_at_s

    def _now_s(self) -> float:
        """The wall clock, or what it would say had it not been set back since."""
        now_s = self._clock.now().timestamp()
        return max(now_s, self._heard_s + self._silent_s()) if self._is_timed else now_s

    @property
    def _is_timed(self) -> bool:
        return self._heard_at_s > -math.inf

    def _is_renewing(self) -> bool:
        """True while kubelets have to renew what ended in an outage that is over."""
        return self._clock.monotonic_s() < self._renewal_until_s

    def lent(self, token: str, mark: str) -> Caller | None:
        """The caller of a token that is good as far as can be told without the API server."""
        now_s, known = self._now_s(), self._good.get(mark)
        if known is not None and now_s < known.expires_s:
            return known.caller
        expired_s = self.expired_s
        is_lending = self._is_away or self._is_renewing()
        if known is None and is_lending and (proved := self._proved(token, mark)) is not None:
            known = proved
            self.put(mark, known)
        if known is None or known.expires_s <= expired_s:
            return None
        if now_s < known.expires_s:
            return known.caller
        return replace(known.caller, mark=mark, expires_s=now_s + LENT_S)

    def _proved(self, token: str, mark: str) -> KnownToken | None:
        now_s = self._now_s()
        found = proved(token, self._keys, self._accounts, now_s=now_s, expired_s=self.expired_s)
        node = "" if found is None else found.pod.node or self._node_of(found.pod)
        if found is None or not node:
            return None
        waypoint = self._accounts.speaks_for(found.subject)
        caller = Caller(node, found.subject, found.issued_s, mark, found.expires_s, waypoint)
        event(log, logging.INFO, "token.proved", node=node)
        return KnownToken(caller, -math.inf, found.expires_s)

    # The API server

    async def run(self, client: KubeClient) -> None:
        """Ask for its keys, and write down what is known, until cancelled."""
        saved_s = self._clock.monotonic_s()
        try:
            while True:
                await self._ask(client)
                if self._clock.monotonic_s() - saved_s >= SAVE_EVERY_S:
                    saved_s = self._clock.monotonic_s()
                    await asyncio.to_thread(self.save)
                await asyncio.sleep(AWAY_EVERY_S if self._is_away else ASK_EVERY_S)
        finally:
            self.save()

    async def _ask(self, client: KubeClient) -> None:
        try:
            issuer = (await client.get(_CONFIGURATION, _Configuration)).issuer
            found = await client.get(_JWKS, _KeySet, accept=_KEY_SET)
        except MeshError as exc:
            if nobody_answers(exc):
                if not self._is_away:
                    self._is_away = True
                    event(log, logging.WARNING, "token_keys.away", error=exc)
                return
            self._heard()
            if str(exc) != self._told:
                self._told = str(exc)
                event(log, logging.WARNING, "token_keys.none", error=exc)
            return
        self._heard()
        keys = IssuerKeys(issuer, found.keys)
        if keys != self._keys:
            self._keys, self._is_changed = keys, True

    def _heard(self) -> None:
        expired_s, now_s = self.expired_s, self._clock.monotonic_s()
        self._heard_s, self._heard_at_s = self._clock.now().timestamp(), now_s
        self._is_changed = True
        if self._is_away:
            self._is_away = False
            self._renewal_from_s, self._renewal_until_s = expired_s, now_s + RENEWAL_S
            event(log, logging.INFO, "token_keys.back")

    # The disk

    def save(self) -> None:
        """Write down what is known, if it is news."""
        if not self._is_changed:
            return
        self._is_changed = False
        tokens = [
            _SavedToken(mark, caller.node, caller.subject, caller.issued_s, each.expires_s)
            for mark, each in list(self._good.items())
            for caller in (each.caller,)
        ]
        value = _SavedCallers(self._origin, self._heard_s, self._keys, tokens)
        try:
            write_atomic(self._path, msgspec.json.encode(value), 0o600, sync=False)
        except OSError as exc:
            event(log, logging.ERROR, "token_keys.not_kept", file=self._path, error=exc)

    def _load(self) -> None:
        try:
            found = _read_saved(self._path)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            event(log, logging.ERROR, "token_keys.unusable", file=self._path, error=exc)
            return
        if found.origin != self._origin:
            why = f"those of another cluster: {found.origin}"
            event(log, logging.ERROR, "token_keys.unusable", file=self._path, error=why)
            return
        self._keys, self._heard_s = found.keys, found.heard_s
        age_s = self._clock.now().timestamp() - found.heard_s
        if age_s >= 0:  # else the clock was set back, and nobody knows
            self._heard_at_s = self._clock.monotonic_s() - age_s
        for each in found.tokens[:GOOD_TOKENS_MAX]:
            caller = self._saved(each)
            if caller is not None:
                self._good[each.mark] = KnownToken(caller, -math.inf, each.expires_s)

    def _saved(self, saved: _SavedToken) -> Caller | None:
        """Its caller, whose account may not be one of ours any more. Which waypoints there are is
        asked when it calls: there are no objects yet."""
        waypoint = None
        if saved.subject not in self._accounts.subjects:
            waypoint = account_of(saved.subject)
            if waypoint is None:
                return None
        return Caller(
            saved.node, saved.subject, saved.issued_s, saved.mark, saved.expires_s, waypoint
        )


def _read_saved(path: Path) -> _SavedCallers:
    with open(path, "rb") as file:
        data = file.read(FILE_BYTES_MAX)
    return msgspec.json.decode(data, type=_SavedCallers)


def newest_issued_s(path: Path, node: str) -> int:
    """When the newest token of this node that was written down was issued; 0: there is none, or no
    such file, as outside a cluster. Raises OSError, ConfigError."""
    try:
        found = _read_saved(path)
    except FileNotFoundError:
        return 0
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"{path}: unusable, remove it: {exc}") from exc
    return max((each.issued_s for each in found.tokens if each.node == node), default=0)
