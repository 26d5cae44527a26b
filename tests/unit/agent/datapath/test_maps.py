"""Maps, as far as they are bytes only. The rest: tests/netns/capture/test_maps.py."""

from __future__ import annotations

import struct

import pytest

from agent.datapath import maps


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0-3,8-11\n", 12)])
def test_possible_cpus_are_counted_to_the_last(text: str, count: int) -> None:
    assert maps.cpu_count_possible(text) == count


def test_the_type_description_of_socket_storage_is_whole() -> None:
    blob = maps._socket_storage_types(24)
    magic, version, _, header, types_at, types, strings_at, strings = struct.unpack_from(
        "<HBBIIIII", blob
    )
    assert (magic, version, header, types_at) == (0xEB9F, 1, 24, 0)
    assert strings_at == types
    assert len(blob) == header + types + strings
    assert blob[header + types] == blob[-1] == 0  # the string table starts and ends with NUL
    assert struct.pack("<I", 24) in blob[header : header + types]  # the value's size
