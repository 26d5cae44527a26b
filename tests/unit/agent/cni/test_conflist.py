"""Our configuration from the primary's bytes: nothing lost, nothing changed, nothing guessed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cni.conflist import (
    OUR_NAMES,
    VERSIONS,
    UnusablePrimary,
    extended,
    is_ours,
    our_name,
    primary_of,
)
from tests.support.processes.cni import SOURCES

ENTRY = {"type": "tulle-cni", "socket": "/run/tulle/n1/cni.sock"}
FLANNEL = b"""{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": { "hairpinMode": true, "isDefaultGateway": true }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
"""
SINGLE = b'{"cniVersion": "0.4.0", "name": "mynet", "type": "bridge", "mtu": 1.50e3}'


def test_a_list_keeps_its_text_and_gets_our_plugin_last() -> None:
    made = extended("10-flannel.conflist", FLANNEL, ENTRY)
    before, whole = json.loads(FLANNEL), json.loads(made)
    assert whole == {**before, "plugins": [*before["plugins"], ENTRY]}
    start, end = FLANNEL[: FLANNEL.rindex(b"}", 0, -4) + 1], FLANNEL[FLANNEL.rindex(b"]") :]
    assert made.startswith(start)
    assert made.endswith(end)


@pytest.mark.parametrize("name", ["10-mynet.conf", "10-mynet.json"])
def test_a_single_plugin_becomes_a_list(name: str) -> None:
    made = extended(name, SINGLE, ENTRY)
    assert json.loads(made) == {
        "cniVersion": "0.4.0",
        "name": "mynet",
        "plugins": [json.loads(SINGLE), ENTRY],
    }
    assert SINGLE in made


REFUSED = {
    "empty": b"",
    "space": b" \n",
    "truncated": FLANNEL[:-3],
    "cut in the middle": FLANNEL[:90],
    "more behind it": FLANNEL + b"x",
    "two texts": FLANNEL + FLANNEL,
    "not UTF-8": FLANNEL.replace(b"cbr0", b"\xff"),
    "a byte order mark": b"\xef\xbb\xbf" + FLANNEL,
    "an array": b"[]",
    "no plugins": b'{"cniVersion": "1.0.0", "name": "a", "plugins": []}',
    "plugins that are none": b'{"cniVersion": "1.0.0", "name": "a", "plugins": [7]}',
    "a plugin without type": b'{"cniVersion": "1.0.0", "name": "a", "plugins": [{}]}',
    "no list": b'{"cniVersion": "1.0.0", "name": "a", "type": "bridge"}',
    "no name": FLANNEL.replace(b'"name": "cbr0",', b""),
    "no version": FLANNEL.replace(b'"cniVersion": "0.3.1",', b""),
    "no chaining": FLANNEL.replace(b"0.3.1", b"0.2.0"),
    "a version to come": FLANNEL.replace(b"0.3.1", b"1.2.0"),
    "a version among others": FLANNEL.replace(b'"name"', b'"cniVersions": ["9.0.0"], "name"'),
    "an empty version": FLANNEL.replace(b"0.3.1", b""),
    "a version that is none": FLANNEL.replace(b'"0.3.1"', b"3"),
    "a name twice": FLANNEL.replace(b'"name": "cbr0",', b'"name": "a", "name": "cbr0",'),
    "plugins twice": FLANNEL.replace(b'"name"', b'"plugins": [], "name"'),
    "not JSON": FLANNEL.replace(b"true", b"NaN"),
    "a comma too many": FLANNEL.replace(b'"cbr0",', b'"cbr0",,'),
    "a comma too few": FLANNEL.replace(b'"cbr0",', b'"cbr0"'),
    "ours": FLANNEL.replace(b"portmap", b"tulle-cni"),
    "too long": FLANNEL + b" " * 300_000,
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_not_whole_is_not_used(data: bytes) -> None:
    with pytest.raises(UnusablePrimary):
        extended("10-flannel.conflist", data, ENTRY)


@pytest.mark.parametrize("data", [b"", SINGLE[:-1], b"{}", b'{"cniVersion":"1.0.0","name":"a"}'])
def test_nor_a_single_one(data: bytes) -> None:
    with pytest.raises(UnusablePrimary):
        extended("10-mynet.conf", data, ENTRY)


def test_one_of_several_versions_is_the_runtimes_choice() -> None:
    text = SINGLE.replace(b'"cniVersion": "0.4.0"', b'"cniVersions": ["0.4.0", "1.1.0"]')
    made = json.loads(extended("a.conf", text, ENTRY))
    assert made["cniVersions"] == ["0.4.0", "1.1.0"]
    assert "cniVersion" not in made


def test_the_plugin_knows_these_versions() -> None:
    source = (SOURCES / "main.c").read_text()
    (said,) = re.findall(r"#define VERSIONS (.*)", source)
    assert tuple(re.findall(r"[0-9.]+", said)) == VERSIONS


def test_no_beginning_of_a_file_is_used() -> None:
    """A primary CNI that writes in place shows us each of them."""
    for size in range(len(FLANNEL.rstrip())):
        with pytest.raises(UnusablePrimary) as caught:
            extended("10-flannel.conflist", FLANNEL[:size], ENTRY)
        assert "index" not in str(caught.value), "words of Python say nothing about a file"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
PLUGINS = st.lists(
    st.builds(
        lambda kind, rest: {**rest, "type": kind},
        st.sampled_from(["bridge", "portmap", 'a"b\\'])
        | st.text(min_size=1, max_size=5).filter(lambda each: each != "tulle-cni"),
        st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


@given(
    rest=st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    plugins=PLUGINS,
    indent=st.none() | st.integers(0, 4),
    ascii_only=st.booleans(),
)
def test_any_list_is_kept(
    rest: dict[str, Any], plugins: list[Any], indent: int | None, ascii_only: bool
) -> None:
    whole = {**rest, "cniVersion": "1.1.0", "name": "x", "plugins": plugins}
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only)
    made = extended("a.conflist", text.encode("utf-8", "replace"), ENTRY)
    expected = json.loads(text.encode("utf-8", "replace"))
    assert json.loads(made) == {**expected, "plugins": [*expected["plugins"], ENTRY]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], None),
        (["00-tulle.conflist", "README", "10-a.conflist.bak", ".10-b.conflist.x1"], None),
        (["10-calico.conflist", "00-tulle.conflist", "87-podman.conflist"], "10-calico.conflist"),
        (["b.conf", "a.json", "c.conflist"], "a.json"),
        (["10-B.conf", "10-a.conf"], "10-B.conf"),
    ],
)
def test_the_primary_is_the_one_that_sorts_first_and_is_not_ours(
    names: list[str], expected: str | None
) -> None:
    assert primary_of(names) == expected
    assert primary_of(reversed(names)) == expected


@pytest.mark.parametrize(
    "primary",
    ["10-calico.conflist", "00-multus.conf", "00-tulle.conf", "00-00-a.conf", "05-cilium.conflist"],
)
def test_our_name_sorts_before_it(primary: str) -> None:
    name = our_name(primary)
    assert sorted([primary, name]) == [name, primary]
    assert is_ours(name)
    assert name in OUR_NAMES


def test_a_name_that_nothing_sorts_before_is_refused() -> None:
    with pytest.raises(UnusablePrimary):
        our_name("!.conf")
