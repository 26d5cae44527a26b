"""The plugin's door: its calls become registrations, and wait for what comes of them.

ADD is answered when the pod is captured and the ztunnel knows it, or when the pod is outside the
mesh. A namespace is outside by the control plane's word; a pod is so by its intent, or by its
namespace's if its own does not come. DEL takes away what was registered for its container, and
nothing else. No call but ADD and CHECK is ever refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from agent import registry
from agent.cni.call import CniCall, CniCode, CniError, parse_call
from agent.cni.namespaces import NamespaceBook
from agent.enrol.enroller import Enroller
from agent.enrol.plan import PodState
from agent.intents import Intents
from agent.registry import Registration
from control.kit import http
from control.kit.door import UNIX_SOCKET
from control.kit.errors import ConfigError, MeshError
from control.kit.log import event

log = logging.getLogger("cni")

# The plugin's own program is the client, and a call takes it a moment to write and to read.
DOOR = replace(
    UNIX_SOCKET,
    connections=256,
    connections_each=256,
    connections_network=256,
    body_bytes=640 * 1024,
    request_s=5.0,
    idle_s=5.0,
    answer_s=10.0,
)
MARGIN_S = 0.3  # so that the plugin hears our sentence before it gives up
LOOK_S = 0.25  # between two looks at a pod that waits: the control plane may have gone
# The control plane has a pod before a kubelet does. One that it does not tell of in this time
# starts all the same, if its namespace is outside the mesh.
OUTSIDE_AFTER_S = 2.0
FORGOTTEN_S = 5.0  # the runtime deletes the namespace whether we are done or not
NAME_CHARS_MAX = 253
CONTAINER_ID_CHARS_MAX = 128  # runtimes use 64
WHY = {
    "no_ztunnel": "no ztunnel runs on this node",
    "enrolling": "the ztunnel has not taken the pod yet",
    "no_address": "the pod has no address",
}


class Known(Protocol):
    async def known(self, uid: str) -> bool: ...


class CniDoor:
    def __init__(
        self,
        enroller: Enroller,
        intents: Intents,
        direct: Known,
        namespaces: NamespaceBook,
        inspect: Callable[..., Registration] = registry.inspected,
    ) -> None:
        self._enroller = enroller
        self._intents = intents
        self._direct = direct
        self._namespaces = namespaces
        self._inspect = inspect
        self.calls: Counter[tuple[str, str]] = Counter()  # (command, ok or refused)
        self._commands = {
            "ADD": self._add,
            "DEL": self._delete,
            "CHECK": self._check,
            "GC": self._collect,
        }

    def routes(self) -> http.Routes:
        return {("POST", "/cni"): self._serve}

    async def _serve(self, request: http.HttpRequest) -> http.HttpResponse:
        command, version, pod = "unknown", "1.1.0", ""
        try:
            call = parse_call(request.body)
            version, pod = call.version, call.pod
            serve = self._commands.get(call.command)
            if serve is None:
                raise CniError(CniCode.BAD_ENVIRONMENT, "CNI_COMMAND is none that the agent knows")
            command = call.command
            await serve(call)
        except CniError as exc:
            self.calls[command, "refused"] += 1
            details = {"pod": pod, "command": command, "code": int(exc.code)}
            event(log, logging.WARNING, "cni.refused", **details, error=exc.sentence)
            return http.as_json(exc.as_json(version), 503)
        self.calls[command, "ok"] += 1
        return http.as_json({})

    # ADD

    async def _add(self, call: CniCall) -> None:
        _check_names(call)
        uid = call.pod_uid
        try:
            async with asyncio.timeout(max(call.left_s - MARGIN_S, 0.0)):
                uid = uid or await self._uid(call)
                if uid:
                    self._enroller.register(self._registration(call, uid))
                    with self._enroller.facts.startup(uid):
                        await self._settled(call, uid)
        except TimeoutError:  # before OSError, of which it is a kind
            raise CniError(CniCode.TRY_LATER, self._why(call, uid)) from None
        except ConfigError as exc:
            raise CniError(CniCode.REFUSED, str(exc), exc.reason) from exc
        except (MeshError, OSError) as exc:
            raise CniError(CniCode.TRY_LATER, str(exc)) from exc

    async def _uid(self, call: CniCall) -> str:
        """The uid of a pod whose runtime does not tell it, by its intent; empty: it is outside."""
        since_s = self._now_s()
        while True:
            news = self._enroller.facts.pulse.next()
            for intent in self._enroller.facts.intents.values():
                if (intent.namespace, intent.name) == (call.pod_namespace, call.pod_name):
                    return intent.uid
            if self._is_outside(call, since_s):
                return ""
            await _woken(news)

    async def _settled(self, call: CniCall, uid: str) -> None:
        since_s = self._now_s()
        facts = self._enroller.facts
        while True:
            news = facts.watches.next(uid)
            found = facts.book.state(uid)
            if found is None:
                raise registry.NamespaceGone(f"{call.pod} was deleted in the meantime")
            state, reason = found
            if state is PodState.CAPTURED:
                # Not for ever: the ztunnel may hear of the pod only when its kubelet tells the
                # addresses, which it does not before we have answered.
                await self._direct.known(uid)
                return
            if state is PodState.NOT_ENROLLED:
                return
            if reason == "no_intent" and self._is_outside(call, since_s):
                return
            await _woken(news)

    def _is_outside(self, call: CniCall, since_s: float) -> bool:
        """True if a pod without an intent is outside the mesh, as far as anybody can tell."""
        if not self._namespaces.is_outside(call.pod_namespace):
            return False
        if self._intents.connection.connected and self._now_s() - since_s < OUTSIDE_AFTER_S:
            return False
        event(log, logging.WARNING, "cni.outside_by_namespace", pod=call.pod, uid=call.pod_uid)
        return True

    def _why(self, call: CniCall, uid: str) -> str:
        found = self._enroller.facts.book.state(uid)
        reason = "no_intent" if found is None else found[1]
        if reason == "no_intent":
            if self._intents.connection.connected:
                return f"the control plane does not know {call.pod} yet"
            return f"the node agent has no control plane: {self._intents.connection.error}"
        said = WHY.get(reason, reason or "the ztunnel does not know the pod yet")
        return f"{call.pod} belongs in the mesh, and {said}"

    def _registration(self, call: CniCall, uid: str) -> Registration:
        return self._inspect(
            uid,
            call.pod_namespace,
            call.pod_name,
            call.netns,
            container_id=call.container_id,
            addresses=registry.one_of_each_family(call.addresses),
        )

    def _now_s(self) -> float:
        return self._enroller.facts.clock.monotonic_s()

    # The others

    async def _delete(self, call: CniCall) -> None:
        uid = call.pod_uid or self._uid_of_container(call.container_id)
        if not uid or not call.container_id:
            return
        if self._enroller.deleted(uid, call.container_id):
            try:
                async with asyncio.timeout(max(min(FORGOTTEN_S, call.left_s - MARGIN_S), 0.0)):
                    await self._enroller.forgotten(uid)
            except TimeoutError:
                event(log, logging.WARNING, "cni.still_releasing", uid=uid)

    def _uid_of_container(self, container_id: str) -> str:
        for known in self._enroller.facts.known:
            if container_id and known.container_id == container_id:
                return known.uid
        return ""

    async def _check(self, call: CniCall) -> None:
        intent = self._enroller.facts.intents.get(call.pod_uid)
        if intent is None or not intent.enrolled:
            return
        state, reason = self._enroller.facts.book.state(call.pod_uid) or (None, "not registered")
        if state is not PodState.CAPTURED:
            sentence = f"{call.pod} belongs in the mesh, and is not captured: {reason}"
            raise CniError(CniCode.TRY_LATER, sentence)

    async def _collect(self, call: CniCall) -> None:
        """Forget pods of containers that the runtime no longer has, once their namespace is gone
        too: a network may have been renamed, and its pods live on."""
        if call.attachments is None:
            return
        for known in self._enroller.facts.known:
            is_named = not known.container_id or known.container_id in call.attachments
            if not is_named and not registry.is_there(known):
                self._enroller.deleted(known.uid, known.container_id)


async def _woken(news: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_S):
            await news.wait()
    except TimeoutError:
        return


def _check_names(call: CniCall) -> None:
    bounds = (
        ("K8S_POD_NAMESPACE", call.pod_namespace, 1, NAME_CHARS_MAX),
        ("K8S_POD_NAME", call.pod_name, 1, NAME_CHARS_MAX),
        ("K8S_POD_UID", call.pod_uid, 0, registry.UID_BYTES_MAX),
        ("CNI_CONTAINERID", call.container_id, 1, CONTAINER_ID_CHARS_MAX),
    )
    for name, value, least, most in bounds:
        is_text = value.isascii() and (value.isprintable() or not value)
        if not is_text or not least <= len(value) <= most:
            raise CniError(CniCode.BAD_ENVIRONMENT, f"{name} has to have {least} to {most} letters")
    if not call.netns.startswith("/") or not call.netns.isprintable():
        raise CniError(CniCode.BAD_ENVIRONMENT, "CNI_NETNS is not an absolute path")
