"""The plugin's door on an agent in memory: who may start, who has to wait, and what stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import registry
from agent.cni import door as door_module
from agent.cni.door import CniDoor
from agent.cni.namespaces import NamespaceBook
from agent.enrol.plan import Capture
from agent.registry import NamespaceGone, NamespaceRefused, Registration, StateUnwritable
from control.kit.http import HttpRequest
from control.model.intent import NamespaceIntent
from tests.support.processes.cni import RECORDED
from tests.unit.agent.agent_example import ADDRESS, example, intent
from tests.unit.agent.cni.test_call import body

LEFT_MS = 320  # with the door's margin some 20 ms of patience
OUTSIDE = NamespaceIntent("plain", enrols=False)


class Direct:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = True

    async def known(self, uid: str) -> bool:
        self.asked.append(uid)
        return self.answer


class Node:
    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.Runner()
        self.agent = example(folder)
        self.direct = Direct()
        self.namespaces = NamespaceBook(folder / "namespaces")
        self.namespaces.changed({"plain": OUTSIDE, "shop": NamespaceIntent("shop", True)}, [])
        self.failure: Exception | None = None
        self.cookies: Iterator[int] = iter(range(100, 200))
        self.door = CniDoor(
            self.agent.enroller,
            self.agent.intents,
            self.direct,
            self.namespaces,
            self.inspect,
        )

    def inspect(self, uid: str, namespace: str, name: str, path: str, **more: Any) -> Registration:
        if self.failure is not None:
            raise self.failure
        return Registration(uid, namespace, name, path, 1, next(self.cookies), **more)

    async def ask(self, command: str = "ADD", **changes: str) -> tuple[int, Any]:
        fields = {
            "uid": "u2",
            "namespace": "shop",
            "name": "db",
            "container": "c2",
            "netns": "/run/netns/x",
            "left": str(LEFT_MS),
            "config": '{"cniVersion": "1.0.0"}',
            **changes,
        }
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": fields["container"],
            "CNI_NETNS": fields["netns"],
            "CNI_ARGS": f"K8S_POD_NAMESPACE={fields['namespace']};K8S_POD_NAME={fields['name']};"
            f"K8S_POD_UID={fields['uid']}",
            "TULLE_LEFT_MS": fields["left"],
        }
        data = body(environment, fields["config"].encode())
        return await self.send(data)

    async def send(self, data: bytes) -> tuple[int, Any]:
        serve = self.door.routes()["POST", "/cni"]
        answer = await serve(HttpRequest("POST", "/cni", {}, {}, data))
        return answer.status, json.loads(answer.body)

    def capture(self, uid: str) -> None:
        pod = self.agent.enroller.facts.book.pods()[uid]
        assert pod.netns is not None
        self.agent.enroller.facts.book.adopted(uid, Capture(pod.netns, pod.addresses))
        self.agent.enroller.facts.news()

    def connect(self) -> None:
        self.agent.intents.connection.connected = True


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    with made.loop:
        yield made


def ask(node: Node, command: str = "ADD", **changes: str) -> tuple[int, Any]:
    return node.loop.run(node.ask(command, **changes))


def while_asked(node: Node, then: Callable[[], None], **changes: str) -> tuple[int, Any]:
    """The answer to a call during whose wait `then` happens."""

    async def run() -> tuple[int, Any]:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            call = tasks.create_task(node.ask(left="5000", **changes))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not call.done()
            then()
            return await call

    return node.loop.run(run())


def test_a_pod_of_the_mesh_waits_for_its_capture_and_its_ztunnel(node: Node) -> None:
    assert while_asked(node, lambda: node.capture("u2")) == (200, {})
    assert node.direct.asked == ["u2"]
    known = node.agent.registry.get("u2")
    assert known is not None
    assert (known.container_id, known.netns) == ("c2", "/run/netns/x")
    assert node.door.calls == {("ADD", "ok"): 1}


def test_nothing_of_a_pod_runs_while_its_add_waits(node: Node) -> None:
    pods = node.agent.enroller.facts.book.pods()
    seen: list[set[str]] = []

    def starting() -> set[str]:
        return {uid for uid, pod in pods.items() if pod.starting}

    def captured() -> None:
        seen.append(starting())
        node.capture("u2")

    assert while_asked(node, captured) == (200, {})
    assert seen == [{"u2"}]
    assert starting() == set()
    assert ask(node)[0] == 503, "in vain, and it does not start"
    assert starting() == set()


def test_a_ztunnel_that_does_not_know_the_pod_does_not_keep_it_for_ever(node: Node) -> None:
    """It may be told by another replica of the control plane than the one that we reported to."""
    node.direct.answer = False
    assert while_asked(node, lambda: node.capture("u2")) == (200, {})
    assert node.direct.asked == ["u2"]


def test_what_is_not_captured_in_time_does_not_start(node: Node) -> None:
    status, error = ask(node)
    assert (status, error["code"], error["cniVersion"]) == (503, 11, "1.0.0")
    assert error["msg"] == "tulle: shop/db belongs in the mesh, and no ztunnel runs on this node"
    assert node.door.calls == {("ADD", "refused"): 1}


def test_a_pod_outside_the_mesh_starts_on_its_intent(node: Node) -> None:
    node.agent.enroller.intents_changed({"u3": intent("u3", "free", enrolled=False)}, [])
    assert ask(node, uid="u3", name="free", container="c3") == (200, {})
    assert node.direct.asked == []


def test_an_intent_that_comes_during_the_wait_is_enough(node: Node) -> None:
    node.connect()

    def come() -> None:
        node.agent.enroller.intents_changed({"u3": intent("u3", "free", enrolled=False)}, [])

    assert while_asked(node, come, uid="u3", name="free", container="c3") == (200, {})


def test_a_pod_nobody_knows_waits_while_the_control_plane_is_there(node: Node) -> None:
    node.connect()
    status, error = ask(node, uid="u9", name="new", container="c9")
    assert status == 503
    assert error["msg"] == "tulle: the control plane does not know shop/new yet"


def test_without_a_control_plane_the_namespace_decides(node: Node) -> None:
    assert ask(node, uid="u8", namespace="plain", name="a", container="c8") == (200, {})
    assert node.agent.registry.get("u8") is not None, "it is captured in place when it has to be"
    for namespace in ("shop", "unknown"):
        status, error = ask(node, uid="u9", namespace=namespace, name="b", container="c9")
        assert status == 503
        assert "has no control plane" in error["msg"]


def test_with_a_control_plane_that_is_silent_about_a_pod_its_namespace_decides_later(
    node: Node,
) -> None:
    node.connect()
    call = {"uid": "u8", "namespace": "plain", "name": "a", "container": "c8"}
    assert ask(node, **call)[0] == 503
    assert node.agent.registry.get("u8") is not None

    def pass_time() -> None:
        clock: Any = node.agent.clock
        clock.pass_s(door_module.OUTSIDE_AFTER_S)
        node.agent.enroller.facts.watches.changed("u8")

    assert while_asked(node, pass_time, **call) == (200, {})


def test_a_runtime_that_tells_no_uid_is_served_by_name(node: Node) -> None:
    assert while_asked(node, lambda: node.capture("u2"), uid="") == (200, {})
    assert ask(node, uid="", namespace="plain", name="a", container="c8") == (200, {})
    node.connect()
    assert ask(node, uid="", name="nobody", container="c9")[0] == 503


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (NamespaceRefused("/x is not a network namespace"), 100),
        (NamespaceGone("gone"), 11),
        (StateUnwritable("full"), 11),
        (PermissionError(13, "Permission denied", "/x"), 11),
    ],
)
def test_what_goes_wrong_is_said(node: Node, failure: Exception, code: int) -> None:
    node.failure = failure
    status, error = ask(node)
    assert (status, error["code"]) == (503, code)
    assert str(failure) in error["msg"]


def test_a_name_that_contradicts_the_control_plane_is_refused(node: Node) -> None:
    status, error = ask(node, name="other")
    assert (status, error["code"], error["details"]) == (503, 100, "pod_mismatch")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"namespace": "x" * 254},
        {"name": "é"},
        {"name": "a\nb"},
        {"uid": "u" * 81},
        {"container": ""},
        {"container": "c" * 129},
        {"netns": ""},
        {"netns": "relative"},
        {"netns": "/a\nb"},
    ],
)
def test_a_call_with_odd_names_is_refused(node: Node, changes: dict[str, str]) -> None:
    status, error = ask(node, **changes)
    assert (status, error["code"]) == (503, 4)


@pytest.mark.parametrize("data", [b"", b"x", b"CNI_COMMAND=MOVE\0\0{}", b"CNI_COMMAND=ADD\0\0["])
def test_what_is_no_call_is_refused(node: Node, data: bytes) -> None:
    status, error = node.loop.run(node.send(data))
    assert (status, error["cniVersion"]) == (503, "1.1.0")


def test_only_the_container_that_is_registered_is_deleted(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of a real runtime: a sandbox was replaced, and its deletion comes minutes later."""
    monkeypatch.setattr(registry, "is_there", lambda known: known.container_id != "gone")
    lines = (RECORDED / "sequence-sandbox-replaced.jsonl").read_text().splitlines()
    uid = json.loads(lines[0])["uid"]
    node.agent.enroller.intents_changed({uid: intent(uid, "p-tcp-kn1", enrolled=False)}, [])
    held: list[str | None] = []
    for each in map(json.loads, lines):
        call = {"uid": each["uid"], "name": each["pod"], "container": each["container_id"]}
        netns = each["netns"] or ("/x" if each["command"] == "ADD" else "")
        assert ask(node, each["command"], netns=netns, **call) == (200, {})
        known = node.agent.registry.get(uid)
        released = uid in node.agent.enroller.facts.book.pods() and (
            node.agent.enroller.facts.book.pods()[uid].netns is None
        )
        held.append(None if known is None or released else known.container_id[:4])
    assert held == ["44f0", None, "f7c3", "f7c3", "f7c3"]


@pytest.mark.parametrize(
    "path", sorted(RECORDED.glob("sequence-*.jsonl")), ids=lambda path: path.stem
)
def test_after_any_recorded_order_the_pods_are_those_that_run(
    node: Node, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: dict[str, str] = {}  # uid → its container
    living: set[str] = set()
    monkeypatch.setattr(registry, "is_there", lambda known: known.container_id in living)
    for each in map(json.loads, path.read_text().splitlines()):
        uid, container = each["uid"], each["container_id"]
        node.agent.enroller.intents_changed({uid: intent(uid, each["pod"], enrolled=False)}, [])
        call = {"uid": uid, "name": each["pod"], "container": container}
        if each["command"] == "ADD":
            running[uid] = container
            living.add(container)
        elif running.get(uid) == container:
            del running[uid]
        assert ask(node, each["command"], netns=each["netns"] or "", **call) == (200, {})
        if each["command"] == "DEL":
            living.discard(container)
        pods = node.agent.enroller.facts.book.pods()
        held = {each.uid: each.container_id for each in node.agent.registry}
        alive = {uid: held[uid] for uid in held if uid in pods and pods[uid].netns is not None}
        alive.pop("u1")  # was there before
        assert alive == running


def test_a_deletion_without_a_uid_goes_by_the_container(node: Node) -> None:
    ask(node)
    assert ask(node, "DEL", uid="", name="", namespace="", container="other") == (200, {})
    assert node.agent.enroller.facts.book.pods()["u2"].netns is not None
    assert ask(node, "DEL", uid="", name="", namespace="", container="c2") == (200, {})
    assert node.agent.enroller.facts.book.pods()["u2"].netns is None
    assert ask(node, "DEL", uid="u2", container="") == (200, {})


def test_a_check_fails_for_a_pod_that_should_be_captured(node: Node) -> None:
    assert ask(node, "CHECK", uid="u1", name="web") == (200, {})
    assert ask(node, "CHECK", uid="unknown", name="x") == (200, {})
    status, error = ask(node, "CHECK")
    assert (status, "is not captured: not registered" in error["msg"]) == (503, True)


def test_collection_forgets_what_is_gone_and_keeps_what_lives(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.agent.registry.put(replace(node.inspect("u5", "plain", "a", "/x"), container_id="dead"))
    node.agent.registry.put(replace(node.inspect("u6", "plain", "b", "/y"), container_id="live"))
    for uid in ("u5", "u6"):
        node.agent.enroller.facts.book.registered(uid, 5, (ADDRESS,), False)
    monkeypatch.setattr(registry, "is_there", lambda known: known.container_id == "live")
    config = json.dumps({"cni.dev/valid-attachments": [{"containerID": "z", "ifname": "eth0"}]})

    def held(uid: str) -> bool:
        pod = node.agent.enroller.facts.book.pods().get(uid)
        return pod is not None and pod.netns is not None

    assert ask(node, "GC") == (200, {})
    assert (held("u5"), held("u6")) == (True, True), "it was not told which live"
    assert ask(node, "GC", config=config) == (200, {})
    assert (held("u5"), held("u6")) == (False, True)
