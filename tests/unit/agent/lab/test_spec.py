"""lab.yaml: what is read, and that every error says where."""

from __future__ import annotations

import pytest

from agent.lab.spec import LabSpec, Ready, parse
from control.kit.errors import ConfigError

GOOD = """\
name: shop
nodes: {n1: {zone: eu-1, region: eu}, n2: {}}
pods:
  shop/web:
    node: n1
    command: [python3, -m, http.server, 80]
    env: {PORT: 80}
    ready: {tcp: 80}
    user: nobody
    files: {/etc/app.conf: conf/app.conf}
    tmpfs: [/var/lib/app]
  shop/db: {node: n2, command: [sleep, infinity], workdir: data}
"""


def good() -> LabSpec:
    return parse(GOOD, "/labs/shop/lab.yaml")


def test_everything_is_read() -> None:
    spec = good()
    web, db = spec.pods
    assert [(node.name, node.zone, node.region) for node in spec.nodes] == [
        ("n1", "eu-1", "eu"),
        ("n2", "", ""),
    ]
    assert (web.key, web.node, web.user, web.ready) == ("shop/web", "n1", "nobody", Ready(tcp=80))
    assert web.command == ("python3", "-m", "http.server", "80")
    assert web.env == {"PORT": "80"}
    assert web.workdir == "/labs/shop"
    assert web.files == {"/etc/app.conf": "/labs/shop/conf/app.conf"}
    assert web.tmpfs == ("/var/lib/app",)
    assert (db.workdir, db.ready) == ("/labs/shop/data", Ready())


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ("[/opt/ztunnel, proxy, ztunnel]", ("/opt/ztunnel", "proxy", "ztunnel")),
        ("[bin/ztunnel]", ("/labs/shop/bin/ztunnel",)),
        ("[ztunnel]", ("ztunnel",)),
    ],
)
def test_a_node_may_have_a_ztunnel_of_another_make(written: str, command: tuple[str, ...]) -> None:
    text = GOOD.replace("n2: {}", f"n2: {{ztunnel: {written}}}")
    assert [node.ztunnel for node in parse(text, "/labs/shop/lab.yaml").nodes] == [(), command]


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("name: shop", "name: Shop!", 1, "name: a name has"),
        ("name: shop", "name: a-name-much-too-long", 1, "name: a name has"),
        ("n2: {}}", "n2: {rack: 1}}", 2, "nodes.n2.rack: unknown field"),
        ("nodes: {n1: {zone: eu-1, region: eu}, n2: {}}", "nodes: {}", 2, "from 1 to"),
        ("n2: {}}", "n2: {ztunnel: x}}", 2, "nodes.n2.ztunnel: must be a list of words"),
        ("n2: {}}", "n2: {ztunnel: []}}", 2, "nodes.n2.ztunnel: must be a list of words"),
        ("n2: {}}", "logs: {}}", 2, "nodes.logs: the lab needs this name itself"),
        ("node: n1", "node: n3", 5, "pods.shop/web.node: no node 'n3'"),
        ("shop/web:", "web:", 4, "the key of a pod is namespace/name"),
        ("[python3, -m, http.server, 80]", "python3", 6, "must be a list of words"),
        ("{PORT: 80}", "{PORT: [1]}", 7, "env.PORT: must be a text"),
        ("{tcp: 80}", "{tcp: 70000}", 8, "ready.tcp: not a port"),
        ("{tcp: 80}", "{tcp: 80, log: x}", 8, "give one of tcp and log"),
        ("{/etc/app.conf:", "{app.conf:", 10, "must be absolute"),
        ("[/var/lib/app]", "[/]", 11, "not an absolute folder"),
        ("user: nobody", "usr: nobody", 9, "pods.shop/web.usr: unknown field"),
    ],
)
def test_errors_name_file_line_and_object(old: str, new: str, line: int, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new, 1), "lab.yaml")
    assert str(caught.value).startswith(f"lab.yaml:{line}: ")
    assert told in str(caught.value)


def test_a_waypoint_is_in_place_of_a_command() -> None:
    text = GOOD.replace("command: [sleep, infinity], workdir: data", "waypoint: gate")
    spec = parse(text, "lab.yaml").pods[1]
    assert (spec.waypoint, spec.command) == ("gate", ())
    for other in ("command: [x]", "ready: {tcp: 1}"):
        with pytest.raises(ConfigError, match="a waypoint has its own"):
            parse(text.replace("waypoint: gate", f"waypoint: gate, {other}"), "lab.yaml")


def test_broken_yaml_names_the_line() -> None:
    with pytest.raises(ConfigError, match=r"^lab\.yaml:2: "):
        parse("name: x\n  nodes: }\n", "lab.yaml")


def test_pods_are_spread_over_as_many_nodes_as_asked() -> None:
    spread = good().spread(1)
    assert [node.name for node in spread.nodes] == ["n1"]
    assert {pod.node for pod in spread.pods} == {"n1"}
    with pytest.raises(ConfigError, match="from 1 to"):
        good().spread(0)
