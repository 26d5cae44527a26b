"""The agent's admin pages on a unix socket, for the CNI plugin and the CLI; decides nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from agent import metrics, registry
from agent.checks.check import Check
from agent.enrol.enroller import ContainerDeleted, NamespaceTaken, PodMismatch
from agent.enrol.plan import PodState
from agent.registry import NamespaceGone, Registration, StateUnwritable
from agent.status import Agent
from control.kit import http, log
from control.kit.errors import ConfigError, KernelError
from control.kit.metrics import SharedPage

TIMEOUT_S, TIMEOUT_S_MAX = 10.0, 60.0  # a kubelet waits some minutes for a CNI plugin
DELETE_TIMEOUT_S = 10.0
_NAME_CHARS_MAX = 253
_CONTAINER_ID_CHARS_MAX = 128  # container runtimes use 64

scope = logging.getLogger("admin")
_FIELDS = {"namespace", "name", "uid", "netns", "pid", "timeout_s", "container_id"}


@dataclass(frozen=True, slots=True)
class PodRequest:
    """A checked POST /pods."""

    namespace: str
    name: str
    uid: str | None
    netns: str
    timeout_s: float
    container_id: str = ""


def parse_request(body: bytes) -> PodRequest:
    try:
        record = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ConfigError("the body is not JSON") from exc
    if not isinstance(record, dict):
        raise ConfigError("the body is not an object")
    unknown = set(record) - _FIELDS
    if unknown:
        raise ConfigError(f"unknown fields: {', '.join(sorted(unknown))}")
    uid, container_id = record.get("uid"), record.get("container_id")
    return PodRequest(
        namespace=_text(record, "namespace", _NAME_CHARS_MAX),
        name=_text(record, "name", _NAME_CHARS_MAX),
        uid=_uid(uid) if uid is not None else None,
        netns=_netns(record),
        timeout_s=_timeout(record.get("timeout_s", TIMEOUT_S)),
        container_id="" if container_id is None else _container_id(container_id),
    )


def _text(record: dict[str, object], field: str, chars_max: int) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= chars_max or not value.isprintable():
        raise ConfigError(f"{field}: 1 to {chars_max} printable characters")
    return value


def _uid(value: object) -> str:
    uid = _text({"uid": value}, "uid", registry.UID_BYTES_MAX)
    if len(uid.encode()) > registry.UID_BYTES_MAX:
        raise ConfigError(f"uid: more than {registry.UID_BYTES_MAX} bytes")
    return uid


def _container_id(value: object) -> str:
    return _text({"container_id": value}, "container_id", _CONTAINER_ID_CHARS_MAX)


def _netns(record: dict[str, object]) -> str:
    netns, pid = record.get("netns"), record.get("pid")
    if (netns is None) == (pid is None):
        raise ConfigError("either netns or pid")
    if pid is not None:
        if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
            raise ConfigError("pid: a positive number")
        return registry.path_of_pid(pid)
    if not isinstance(netns, str) or not netns.startswith("/") or not netns.isprintable():
        raise ConfigError("netns: an absolute path")
    return netns


def _timeout(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError("timeout_s: a number")
    return min(max(float(value), 0.0), TIMEOUT_S_MAX)


class AgentAdmin:
    def __init__(self, agent: Agent, checks: Callable[[], Awaitable[list[Check]]]) -> None:
        self._agent = agent
        self._checks = checks
        self._metrics = SharedPage(self._registry)

    def routes(self) -> http.Routes:
        return {
            ("GET", "/status"): self._status,
            ("GET", "/check"): self._check,
            ("POST", "/compare"): self._compare,
            ("POST", "/pods"): self._register,
            ("DELETE", "/pods/*"): self._delete,
            ("GET", "/logging"): self._logging,
            ("POST", "/logging"): self._logging,
            **self.public_routes(),
        }

    def public_routes(self) -> http.Routes:
        """Pages of the loopback port; none of them changes anything."""
        return {
            ("GET", "/metrics"): self._metrics_page,
            ("GET", "/healthz/ready"): self._ready,
            ("GET", "/healthz/live"): http.alive,
        }

    async def _status(self, request: http.HttpRequest) -> http.HttpResponse:
        return http.as_json(self._agent.status())

    async def _check(self, request: http.HttpRequest) -> http.HttpResponse:
        return http.as_json([check.as_json() for check in await self._checks()])

    async def _compare(self, request: http.HttpRequest) -> http.HttpResponse:
        """Compare belief and kernel now; what differs is repaired as in the agent's own turn."""
        await self._agent.enroller.compare()
        return http.as_json(self._agent.enroller.compared.status())

    async def _metrics_page(self, request: http.HttpRequest) -> http.HttpResponse:
        headers, page = await self._metrics.get(request.headers)
        return http.HttpResponse(200, page, headers)

    async def _registry(self) -> CollectorRegistry:
        return metrics.registry_of(self._agent)

    async def _ready(self, request: http.HttpRequest) -> http.HttpResponse:
        if self._agent.intents.synced:
            return http.text("ready\n")
        return http.text("no intents received yet\n", 503)

    async def _logging(self, request: http.HttpRequest) -> http.HttpResponse:
        level = request.query.get("level")
        if level is not None:
            if request.method != "POST":
                return refusal(405, "method_not_allowed", "POST changes a level, GET shows it")
            try:
                log.set_level(level)
            except ValueError as exc:
                return refusal(400, "bad_level", str(exc))
        return http.as_json(log.current_levels())

    async def _delete(self, request: http.HttpRequest) -> http.HttpResponse:
        """DELETE /pods/<uid>?container_id=…, idempotent: answers when nothing is left of the pod.

        About another container than the one that is registered it does nothing, and says so.
        """
        uid = urllib.parse.unquote(request.path.removeprefix("/pods/"))
        if not self._agent.enroller.deleted(uid, request.query.get("container_id", "")):
            return http.as_json({"uid": uid, "kept": "other_container"})
        try:
            async with asyncio.timeout(DELETE_TIMEOUT_S):
                await self._agent.enroller.forgotten(uid)
        except TimeoutError:
            return refusal(
                503, "still_releasing", f"{uid} is released, but a ztunnel still holds it"
            )
        return http.as_json({"uid": uid})

    async def _register(self, request: http.HttpRequest) -> http.HttpResponse:
        uid: str | None = None
        try:
            wanted = parse_request(request.body)
            async with asyncio.timeout(wanted.timeout_s):
                uid = _uid(wanted.uid or await self._uid_of(wanted))
                # Aside: a look at its addresses waits for whoever on this host changes devices.
                found = await asyncio.to_thread(registration, wanted, uid)
                self._agent.enroller.register(found)
                state = await self._agent.enroller.settled(uid)
        except (NamespaceTaken, PodMismatch, ContainerDeleted) as exc:
            return refusal(409, exc.reason, str(exc))
        except ConfigError as exc:
            return refusal(400, exc.reason, str(exc))
        except NamespaceGone as exc:
            return refusal(409, exc.reason, str(exc))
        except StateUnwritable as exc:  # a restart would lose the pod
            return refusal(503, exc.reason, str(exc))
        except TimeoutError:  # before OSError, of which it is a kind
            return self._unsettled(uid)
        except (KernelError, OSError) as exc:
            return refusal(500, "kernel", str(exc))
        if state is PodState.CAPTURED:
            await self._agent.direct.known(uid)
        return http.as_json({"uid": uid, "state": state.value})

    def _unsettled(self, uid: str | None) -> http.HttpResponse:
        """The refusal of a pod that was not settled in time: the caller must not start it."""
        found = self._agent.enroller.facts.book.state(uid) if uid is not None else None
        reason = found[1] if found is not None else "no_intent"
        error = "the control plane does not know this pod" if reason == "no_intent" else reason
        log.event(scope, logging.WARNING, "pod.unsettled", uid=uid, reason=reason)
        return refusal(503, reason, f"not settled in time: {error}")

    async def _uid_of(self, wanted: PodRequest) -> str:
        """Wait for the intent of a pod that came without a uid; the uid in it."""
        enroller = self._agent.enroller
        while True:
            news = enroller.facts.pulse.next()
            for intent in enroller.facts.intents.values():
                if (intent.namespace, intent.name) == (wanted.namespace, wanted.name):
                    return intent.uid
            await news.wait()


def registration(wanted: PodRequest, uid: str) -> Registration:
    return registry.inspected(
        uid, wanted.namespace, wanted.name, wanted.netns, container_id=wanted.container_id
    )


def refusal(status: int, reason: str, error: str) -> http.HttpResponse:
    return http.as_json({"error": error, "reason": reason}, status)
