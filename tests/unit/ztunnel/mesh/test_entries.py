"""Entries of the RESOURCES frame: they come back as they went, in pieces of bounded size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from ztunnel.mesh.entries import (
    BODY_BYTES_MAX,
    CHUNK_BYTES_MAX,
    CHUNK_ENTRIES_MAX,
    NAME_BYTES_MAX,
    Entry,
    Op,
    chunks,
    decode_entries,
    encode_entries,
)

ENTRIES = st.lists(
    st.builds(Entry, st.sampled_from(Op), st.text(max_size=20), st.binary(max_size=50))
)


def test_the_layout_of_one_entry() -> None:
    assert encode_entries([Entry(Op.POLICY, "n/p", b"body")]) == (
        b"\x02\x00\x03n/p\x00\x00\x00\x04body"
    )
    assert encode_entries([Entry(Op.SNAPSHOT)]) == b"\x06\x00\x00\x00\x00\x00\x00"


@given(ENTRIES)
def test_entries_come_back(entries: list[Entry]) -> None:
    assert decode_entries(encode_entries(entries)) == entries


@given(st.binary(max_size=80))
def test_any_bytes_are_entries_or_a_wire_error(payload: bytes) -> None:
    try:
        found = decode_entries(payload)
    except WireError:
        return
    assert encode_entries(found) == payload


@pytest.mark.parametrize("size", range(1, 13))
def test_every_cut_of_an_entry_is_noticed(size: int) -> None:
    whole = encode_entries([Entry(Op.ADDRESS, "name", b"body")])
    with pytest.raises(WireError):
        decode_entries(whole[:size])


def test_an_operation_of_the_future_is_an_error() -> None:
    with pytest.raises(WireError):
        decode_entries(b"\x20\x00\x00\x00\x00\x00\x00")


@pytest.mark.parametrize(
    "entry",
    [
        Entry(Op.ADDRESS, "n" * (NAME_BYTES_MAX + 1)),
        Entry(Op.ADDRESS, "n", bytes(BODY_BYTES_MAX + 1)),
    ],
    ids=["name", "body"],
)
def test_what_would_not_fit_its_length_is_refused(entry: Entry) -> None:
    with pytest.raises(WireError, match="too large"):
        encode_entries([entry])


def test_chunks_are_bounded_and_keep_the_order() -> None:
    small = [Entry(Op.ADDRESS, f"w{number}") for number in range(3 * CHUNK_ENTRIES_MAX + 1)]
    large = [Entry(Op.POLICY, f"p{number}", bytes(CHUNK_BYTES_MAX // 3)) for number in range(7)]
    payloads = list(chunks([*small, *large]))
    parts = [decode_entries(payload) for payload in payloads]
    assert [entry for part in parts for entry in part] == [*small, *large]
    assert max(map(len, parts)) == CHUNK_ENTRIES_MAX
    assert all(sum(len(e.body) + len(e.name) for e in part) <= CHUNK_BYTES_MAX for part in parts)


def test_one_large_resource_is_a_chunk_of_its_own() -> None:
    huge = Entry(Op.ADDRESS, "huge", bytes(2 * CHUNK_BYTES_MAX))
    small = Entry(Op.ADDRESS, "small")
    parts = [decode_entries(payload) for payload in chunks([small, huge, small])]
    assert parts == [[small], [huge], [small]]


def test_nothing_is_no_chunk() -> None:
    assert list(chunks([])) == []
