"""The CNI plugin's scanner beside Python's JSON: the same texts, the same members."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.processes.cni import SOURCES, compile_plugin

NAMES = ("a", "cniVersion", "prevResult")


class Text(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))


Member = Callable[[bytes, str], bytes | None]


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Member:
    to = tmp_path_factory.mktemp("scan") / "scan.so"
    library = ctypes.CDLL(str(compile_plugin(to, "-shared", "-fPIC", f"-I{SOURCES}")))
    library.scan_member.argtypes = [Text, ctypes.c_char_p, ctypes.POINTER(Text)]
    library.scan_member.restype = ctypes.c_bool

    def found(data: bytes, name: str) -> bytes | None:
        # A buffer of exactly that size, whose end the sanitizers of a debugging build would see.
        buffer = (ctypes.c_char * max(len(data), 1)).from_buffer_copy(data or b"\0")
        value = Text()
        whole = Text(ctypes.addressof(buffer), len(data))
        if not library.scan_member(whole, name.encode(), ctypes.byref(value)):
            return None
        return ctypes.string_at(value.at, value.size)

    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def by_python(data: bytes, name: str) -> Any:
    """The member's value, in a list; None: it is not there."""
    try:
        whole = json.loads(data.decode("latin-1"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return [whole[name]] if isinstance(whole, dict) and name in whole else None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
documents = st.builds(
    lambda value, indent, ascii: json.dumps(value, indent=indent, ensure_ascii=ascii).encode(
        "utf-8", "surrogatepass"
    ),
    st.dictionaries(st.sampled_from(NAMES), values, max_size=3) | values,
    st.none() | st.integers(0, 2),
    st.booleans(),
)
damage = st.tuples(st.integers(0, 200), st.sampled_from(b'{}[]",:\\x0-+.eE tfn\x00\x1f\xff'))


@given(data=documents, name=st.sampled_from(NAMES), damages=st.lists(damage, max_size=2))
@example(b'{"a":1,"a":2}', "a", [])
@example(b'{"a":}', "a", [])
@example(b'{"a":1,}', "a", [])
@example(b'{"a":"\\u12"}', "a", [])
@example(b'{"a":01}', "a", [])
@example(b'{"a":-}', "a", [])
@example(b'{"a":1}x', "a", [])
@example(b"", "a", [])
def test_members_are_those_that_python_finds(
    member: Member, data: bytes, name: str, damages: list[tuple[int, int]]
) -> None:
    changed = bytearray(data)
    for place, byte in damages:
        if changed:
            changed[place % len(changed)] = byte
    found, expected = member(bytes(changed), name), by_python(bytes(changed), name)
    if b"\\u00" in changed:  # a name in escapes is not looked for
        return
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert [json.loads(found.decode("latin-1"))] == expected


@given(data=st.binary(max_size=64))
def test_any_bytes_are_read_to_their_end_at_most(member: Member, data: bytes) -> None:
    assert (member(data, "a") is None) == (by_python(data, "a") is None)
