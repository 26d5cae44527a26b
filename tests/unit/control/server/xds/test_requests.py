"""Requests of clients: equal lists are read once, and nothing else is taken for one."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.server.xds.requests import LISTS_MAX, WORTH_BYTES, Requests
from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, POD_TYPE
from tests.support.counted_steps import measured

MANY = {f"Kubernetes//Pod/ns/app-{number:06d}": f"{number:016x}" for number in range(1500)}


def data_of(
    node: str = "", type_url: str = ADDRESS_TYPE, held: dict[str, str] = MANY, nonce: str = ""
) -> bytes:
    message = pb.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
    if node:
        message.node.id = node
    message.initial_resource_versions.update(held)
    return message.SerializeToString(deterministic=True)


def test_nodes_with_the_same_list_are_given_the_same_object() -> None:
    requests = Requests()
    first, second = (requests.read(data_of(node)) for node in ("a", "b" * 300))
    assert first.held == MANY
    assert second.held is first.held
    assert [each.message.node.id for each in (first, second)] == ["a", "b" * 300]
    assert not second.message.initial_resource_versions
    more = MANY | {"more" * 40: "1" * 16, "a": "2" * 16, "ä" * 50: "3" * 16}
    other = requests.read(data_of("c", held=more))
    assert other.held == more
    assert requests.read(data_of("d", AUTHORIZATION_TYPE)).held is not first.held
    again = requests.read(data_of("e", held=more))
    assert again.held is other.held
    requests.forget()
    assert requests.read(data_of("e", held=more)).held is not other.held


def test_a_list_is_known_in_any_order() -> None:
    """Every process writes its map in another one."""
    requests = Requests()
    first = requests.read(data_of())
    names = list(MANY)
    for seed in range(3):
        Random(seed).shuffle(names)
        data = data_of(held={}) + b"".join(
            data_of(held={each: MANY[each]}, type_url="") for each in names
        )
        assert requests.read(data).held is first.held


def test_lists_that_differ_in_anything_are_told_apart() -> None:
    requests = Requests()
    first = requests.read(data_of())
    one, two, *_ = MANY
    for held in (
        {key: each for key, each in MANY.items() if key != one},
        MANY | {one: "f" * 16},
        MANY | {one: MANY[two], two: MANY[one]},
    ):
        assert requests.read(data_of(held=held)).held == held
    assert requests.read(data_of()).held is first.held


def test_of_a_name_that_stands_twice_the_last_counts() -> None:
    requests = Requests()
    name = next(iter(MANY))
    again = data_of(held={name: "e" * 16}, type_url="")
    for data, version in ((data_of() + again, "e" * 16), (data_of(), MANY[name])):
        for _ in range(2):
            assert requests.read(data).held[name] == version


def test_only_some_lists_are_remembered() -> None:
    requests = Requests()
    first = requests.read(data_of()).held
    for number in range(LISTS_MAX):
        assert requests.read(data_of()).held is first
        requests.read(data_of(held=MANY | {"more": f"{number:016}"}))
    assert requests.read(data_of()).held is not first


def test_what_stands_behind_a_list_counts() -> None:
    requests = Requests()
    for _ in range(2):
        request = requests.read(data_of("a", nonce="n"))
        assert (request.message.response_nonce, request.held) == ("n", MANY)
    assert requests.read(data_of("a")).message.response_nonce == ""


def test_the_list_of_an_answer_is_known_too() -> None:
    requests = Requests()
    first = requests.read(data_of("a")).held
    for nonce in ("n", "n" * 100):
        assert requests.read(data_of(nonce=nonce)).held is first


def test_a_short_list_and_one_of_a_type_of_few_are_just_read() -> None:
    requests = Requests()
    short = {"a": "1"}
    assert len(data_of(held=short)) < WORTH_BYTES
    for made in (data_of(held=short), data_of(type_url=POD_TYPE)):
        first, second = requests.read(made), requests.read(made)
        assert first.held == second.held
        assert first.held is not second.held


def test_rubbish_is_refused() -> None:
    for made in (b"\xff" * 10, b"\x0a" + b"\xff" * WORTH_BYTES, data_of() + b"\x0a\xff"):
        with pytest.raises(WireError):
            Requests().read(made)


@given(st.binary(max_size=40), st.binary(max_size=40), st.booleans())
def test_it_reads_what_protobuf_reads(before: bytes, behind: bytes, twice: bool) -> None:
    made = before + data_of("n") + behind
    requests = Requests()
    if twice:
        requests.read(data_of("m"))
    try:
        wanted = pb.DeltaDiscoveryRequest.FromString(made)
    except Exception:  # whatever protobuf makes of it
        with pytest.raises(WireError):
            requests.read(made)
        return
    found = requests.read(made)
    assert found.held == dict(wanted.initial_resource_versions)
    wanted.ClearField("initial_resource_versions")
    assert found.message == wanted


def test_a_list_is_read_in_steps() -> None:
    many = {f"Kubernetes//Pod/ns/app-{number:06d}": f"{number:016x}" for number in range(5000)}
    most = measured(Requests().steps(data_of(held=many)))
    assert most.lines[0] < len(many) / 2, most


@given(st.integers(0, 200), st.integers(1, 120))
def test_wherever_a_window_ends_the_list_is_the_one_that_was_sent(more: int, gap: int) -> None:
    """A name's length moves all that follow; what stands between two entries ends the list."""
    held = MANY | {"a" * more: "0" * 16}
    requests = Requests()
    assert requests.read(data_of("x" * gap, held=held)).held == held
    data = data_of(held=MANY)
    broken = data + data_of(held={}, nonce="n" * gap) + data_of(held=held, type_url="")
    assert requests.read(broken).held == held
