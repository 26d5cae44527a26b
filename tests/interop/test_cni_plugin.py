"""The CNI plugin between a runtime that calls as recorded and an agent that answers anything."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.processes.cni import (
    DEADLINE_MS,
    RECORDED,
    Plugin,
    ScriptedDoor,
    compile_plugin,
    http,
)

YES = http(200)
REFUSAL = {"cniVersion": "1.1.0", "code": 11, "msg": "tulle: not yet", "details": "later"}
NO = http(503, json.dumps(REFUSAL).encode())
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text()
INTERPRETER = 3  # PT_INTERP: a program that needs the host's loader


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("plugin") / "tulle-cni"
    return compile_plugin(to, f"-DDEADLINE_MS={DEADLINE_MS}", '-DTULLE_VERSION="7.8"')


@pytest.fixture
def plugin(program: Path, tmp_path: Path) -> Plugin:
    return Plugin(program, tmp_path)


def elapsed_s(started: float) -> float:
    return time.monotonic() - started


def previous(name: str) -> object:
    return json.loads((RECORDED / name).read_text())["stdin"]["prevResult"]


# The agent answers


def test_a_yes_passes_on_the_result_of_the_plugins_before_it(plugin: Plugin) -> None:
    with ScriptedDoor(lambda _: YES).at(plugin.socket) as door:
        done = plugin.replay("ADD.json")
    assert (done.code, done.json()) == (0, previous("ADD.json"))
    environment = json.loads((RECORDED / "ADD.json").read_text())["environment"]
    (call,) = door.calls
    left_ms = call.environment.pop("TULLE_LEFT_MS")
    assert 0 < int(left_ms) <= DEADLINE_MS
    assert call.environment == {k: v for k, v in environment.items() if k != "CNI_PATH"}
    assert json.loads(call.stdin)["prevResult"] == previous("ADD.json")


def test_a_no_is_printed_as_the_agent_said_it(plugin: Plugin) -> None:
    plugin.knows("-shop")  # the agent that is there knows better
    with ScriptedDoor(lambda _: NO).at(plugin.socket):
        done = plugin.replay("ADD.json")
    assert (done.code, done.json()) == (1, REFUSAL)


@pytest.mark.parametrize("size", [100, 70_000, 400_000])
def test_the_result_is_passed_on_byte_by_byte(plugin: Plugin, size: int) -> None:
    recorded = json.loads((RECORDED / "ADD.json").read_text())
    odd = '{"cniVersion":"0.4.0" , "x":[1e999,{"prevResult":-0.0}],"y":"%s\\u00e9" }' % ("z" * size)
    ours = json.dumps(plugin.configured({"cniVersion": "0.4.0", "name": "n"}))
    text = f'{ours[:-1]}, "prevResult" : {odd}\n }}'
    with ScriptedDoor(lambda _: YES).at(plugin.socket):
        done = plugin.call(text.encode(), recorded["environment"])
    assert (done.code, done.out.decode()) == (0, odd + "\n")


BROKEN = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "half a head": YES[:-2],
    "no length": b"HTTP/1.1 200 \r\n\r\n",
    "half a body": http(503, b"x" * 40)[:-3],
    "not HTTP": b"\0" * 100 + b"\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 \r\n" + b"x: y\r\n" * 100_000,
    "a huge body": http(503, b"{" * 1_000_000),
    "a huge length": b"HTTP/1.1 200 \r\ncontent-length: 99999999999999999999\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 \r\ncontent-length: -1\r\n\r\n",
    "no JSON": http(500, b"Internal Server Error"),
    "JSON that is no error": http(500, b'{"code": 1}'),
    "another list": http(500, b"[]"),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_none_is_asked_for_again(plugin: Plugin, answer: bytes) -> None:
    with ScriptedDoor(lambda number: answer if number == 1 else YES).at(plugin.socket) as door:
        done = plugin.replay("ADD.json")
    assert (done.code, len(door.calls)) == (0, 2)


# The agent does not answer


def test_without_an_agent_a_pod_of_the_mesh_waits_and_fails_with_a_sentence(
    plugin: Plugin,
) -> None:
    plugin.knows("-plain", "+shop")
    started = time.monotonic()
    done = plugin.replay("ADD.json")
    assert elapsed_s(started) >= DEADLINE_MS / 1000
    assert (done.code, done.json()["code"]) == (1, 11)
    assert done.sentence == (
        "tulle: the node agent is not running, and pods of this namespace start only with it; "
        "it is tried again"
    )


def test_an_agent_that_comes_in_time_is_asked(plugin: Plugin) -> None:
    """As in an upgrade: the first answer is none, the second one is a successor's."""
    plugin.knows("+shop")
    with ScriptedDoor(lambda number: b"" if number < 3 else YES).at(plugin.socket):
        assert plugin.replay("ADD.json").code == 0


def test_without_an_agent_a_pod_outside_the_mesh_starts_at_once(plugin: Plugin) -> None:
    plugin.knows("+web", "-shop")
    started = time.monotonic()
    done = plugin.replay("ADD.json")
    assert (done.code, done.json()) == (0, previous("ADD.json"))
    assert elapsed_s(started) < DEADLINE_MS / 1000


def test_a_silent_agent_holds_up_pods_of_the_mesh_only(plugin: Plugin) -> None:
    with ScriptedDoor(lambda _: None).at(plugin.socket):
        plugin.knows("-shop")
        assert plugin.replay("ADD.json").code == 0
        plugin.knows("+shop")
        done = plugin.replay("ADD.json")
    assert (done.code, done.json()["code"]) == (1, 11)
    assert "did not answer in time" in done.sentence


CLOSED = {
    "no file": None,
    "empty": "",
    "another format": "tulle namespaces 2\n-shop\nend\n",
    "cut off": "tulle namespaces 1\n-shop\n",
    "cut in a line": "tulle namespaces 1\n-shop",
    "a line that is too long": "tulle namespaces 1\n-shop\n-" + "x" * 300 + "\nend\n",
    "a longer name": "tulle namespaces 1\n-shop2\nend\n",
    "a shorter name": "tulle namespaces 1\n-sho\nend\n",
    "unknown": "tulle namespaces 1\n-plain\nend\n",
    "an odd sign": "tulle namespaces 1\n?shop\nend\n",
}


@pytest.mark.parametrize("content", CLOSED.values(), ids=CLOSED)
def test_without_a_word_a_pod_does_not_start(plugin: Plugin, content: str | None) -> None:
    if content is not None:
        plugin.namespaces.write_text(content)
    done = plugin.replay("ADD.json")
    assert (done.code, done.json()["code"]) == (1, 11)


def test_exempt_namespaces_start_when_there_is_no_file(plugin: Plugin) -> None:
    plugin.exempt = ("kube-system", "shop")
    assert plugin.replay("ADD.json").code == 0
    plugin.exempt = ("kube-system", "shoe")
    assert plugin.replay("ADD.json").code == 1


def test_the_file_counts_more_than_an_exemption(plugin: Plugin) -> None:
    plugin.exempt = ("shop",)
    plugin.knows("+shop")
    assert plugin.replay("ADD.json").code == 1


@pytest.mark.parametrize("name", ["DEL.json", "DEL-after-failed-ADD.json"])
def test_pods_stop_without_an_agent(plugin: Plugin, name: str) -> None:
    assert plugin.replay(name) == plugin.call(b"", {"CNI_COMMAND": "DEL"})
    assert plugin.replay(name).code == 0


@pytest.mark.parametrize("answer", [NO, None, b"", b"\xff" * 9])
@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_pods_stop_whatever_the_agent_answers(
    plugin: Plugin, command: str, answer: bytes | None
) -> None:
    with ScriptedDoor(lambda _: answer).at(plugin.socket) as door:
        done = plugin.replay("DEL.json", CNI_COMMAND=command)
    assert (done.code, done.out) == (0, b"")
    assert door.calls[0].environment["CNI_COMMAND"] == command


def test_check_fails_only_when_the_agent_says_so(plugin: Plugin) -> None:
    assert plugin.replay("ADD.json", CNI_COMMAND="CHECK").code == 0
    with ScriptedDoor(lambda _: NO).at(plugin.socket):
        done = plugin.replay("ADD.json", CNI_COMMAND="CHECK")
    assert (done.code, done.json()) == (1, REFUSAL)


def test_status_fails_until_the_agent_has_started_since_boot(plugin: Plugin) -> None:
    done = plugin.replay("STATUS.json")
    assert (done.code, done.json()["code"]) == (1, 50)
    plugin.marker.write_text(BOOT_ID.replace(BOOT_ID[0], "x"))
    assert plugin.replay("STATUS.json").code == 1
    plugin.marker.write_text(BOOT_ID)  # and no agent now: it is being upgraded
    done = plugin.replay("STATUS.json")
    assert (done.code, done.out) == (0, b"")


# The runtime's side


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_versions(plugin: Plugin, version: str) -> None:
    done = plugin.call(b'{"cniVersion":"%s"}' % version.encode(), {"CNI_COMMAND": "VERSION"})
    assert done.code == 0
    assert done.json()["cniVersion"] == version
    assert version in done.json()["supportedVersions"]


REFUSED = {
    "no command": ({}, b"{}", 4),
    "an unknown command": ({"CNI_COMMAND": "MOVE"}, None, 4),
    "nothing on standard input": ({"CNI_COMMAND": "ADD"}, b"", 6),
    "no JSON": ({"CNI_COMMAND": "ADD"}, b"{", 6),
    "no object": ({"CNI_COMMAND": "ADD"}, b"[]", 6),
    "no version": ({"CNI_COMMAND": "ADD"}, b"{}", 6),
    "an odd version": ({"CNI_COMMAND": "ADD"}, b'{"cniVersion":"1<1"}', 1),
    "an old version": ({"CNI_COMMAND": "ADD"}, b'{"cniVersion":"0.2.0"}', 1),
    "a version to come": ({"CNI_COMMAND": "ADD"}, b'{"cniVersion":"2.0.0"}', 1),
    "half a version": ({"CNI_COMMAND": "ADD"}, b'{"cniVersion":"1.0"}', 1),
    "no socket": ({"CNI_COMMAND": "ADD"}, b'{"cniVersion":"1.0.0"}', 7),
    "too long": ({"CNI_COMMAND": "ADD"}, b" " * 600_000, 6),
    "too deep": ({"CNI_COMMAND": "ADD"}, b"[" * 100 + b"]" * 100, 6),
    "a long variable": ({"CNI_COMMAND": "ADD", "CNI_ARGS": "x" * 20_000}, b"{}", 4),
    "not chained": ({"CNI_COMMAND": "ADD"}, None, 7),
}


@pytest.mark.parametrize(("environment", "stdin", "code"), REFUSED.values(), ids=REFUSED)
def test_a_call_that_is_wrong_is_refused_by_the_codes_of_the_specification(
    plugin: Plugin, environment: dict[str, str], stdin: bytes | None, code: int
) -> None:
    good = json.dumps(plugin.configured({"cniVersion": "1.0.0"})).encode()
    done = plugin.call(good if stdin is None else stdin, environment)
    assert (done.code, done.json()["code"]) == (1, code)
    assert done.sentence.startswith("tulle: ")


def test_containers_that_are_no_pods_are_not_asked_about(plugin: Plugin) -> None:
    """As of nerdctl, which reads the same folder."""
    for arguments in ("", "IgnoreUnknown=1", "K8S_POD_NAMESPACE=", "XK8S_POD_NAMESPACE=shop"):
        done = plugin.replay("ADD.json", CNI_ARGS=arguments)
        assert (done.code, done.json()) == (0, previous("ADD.json"))


def test_the_namespace_is_found_anywhere_in_the_arguments(plugin: Plugin) -> None:
    plugin.knows("-plain")
    parts = ["IgnoreUnknown=1", "K8S_POD_NAMESPACE=plain", "K8S_POD_NAME=a;b", ""]
    for order in itertools.permutations(parts):
        assert plugin.replay("ADD.json", CNI_ARGS=";".join(order)).code == 0


def test_the_program_is_static_and_says_its_version(tmp_path: Path) -> None:
    static = compile_plugin(tmp_path / "static", "-static", '-DTULLE_VERSION="7.8"')
    assert INTERPRETER not in program_headers(static.read_bytes())
    done = subprocess.run([static, "--version"], capture_output=True, env={}, timeout=10)
    assert (done.returncode, done.stdout) == (0, b"tulle-cni 7.8\n")


def program_headers(elf: bytes) -> set[int]:
    """Types of the segments of a 64-bit program."""
    (offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    return {struct.unpack_from("<I", elf, offset + size * i)[0] for i in range(count)}
