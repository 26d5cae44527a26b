"""maps.h and layout.py say the same: sizes, offsets, enums, limits."""

from __future__ import annotations

import ctypes
import subprocess

import pytest

from bpf import layout
from tests.unit.bpf.c_build import HEADERS, build

LIMITS = (
    "PODS_MAX",
    "EXEMPT_CGROUPS_MAX",
    "DESTINATIONS_MAX",
    "CLIENTS_MAX",
    "LOCALS_MAX",
    "VERDICTS_MAX",
    "POD_FLOWS_MAX",
    "SERVICES_MAX",
    "SLOTS_MAX",
    "VOUCHED_MAX",
    "SHORTCUTS_MAX",
    "PASSTHROUGH_MAX",
    "PASSTHROUGH_NS",
    "FLOWS_BYTES",
    "FLOWS_UNREAD_MAX",
    "VOUCH_GRACE_NS",
    "LISTENERS_MAX",
    "PLAINTEXT_MAX",
    "PROBES_MAX",
    "PROBE_GRACE_NS",
    "REFUSED_SLOTS_BITS",
    "REFUSED_SLOTS",
    "ABOUT_MAX",
    "ABOUT_BYTES",
    "HBONE_PORT",
    "ROLE_SLOTS_BITS",
    "ROLE_SLOTS",
    "BLOCK_V4",
    "BLOCK_V4_BITS",
    "SOURCES_V4",
    "SIDE_V4_BITS",
    "BLOCK_V6_HIGH",
    "BLOCK_V6_LOW",
    "TARGETS_V6",
    "SOURCES_V6",
    "SOURCE_PORT",
    "SHOW_CLIENT_OPTION",
    "ORIGINAL_DESTINATION_OPTION",
)


def _expressions() -> dict[str, str]:
    """Lines that the C program prints: our name -> a C expression."""
    wanted = {f"limit.{name}": name for name in LIMITS}
    for name, struct in layout.STRUCTS.items():
        wanted[name] = f"sizeof(struct {name})"
        for field, *_ in struct._fields_:
            wanted[f"{name}.{field}"] = f"__builtin_offsetof(struct {name}, {field})"
    wanted |= {f"counter.{counter.name}": f"COUNTER_{counter.name}" for counter in layout.Counter}
    wanted |= {f"map.{name}": f"MAP_{name.upper()}" for name in layout.MAPS}
    wanted |= {f"mode.{mode.name}": f"POD_{mode.name}" for mode in layout.PodMode}
    wanted |= {f"rule.{rule.name}": f"PLAINTEXT_{rule.name}" for rule in layout.PlaintextRule}
    wanted |= {f"role.{role.name}": f"ROLE_{role.name}" for role in layout.ListenerRole}
    wanted |= {f"hint.{hint.name}": f"HINT_{hint.name}" for hint in layout.Hint}
    wanted |= {f"flow.{kind.name}": f"FLOW_{kind.name}" for kind in layout.FlowKind}
    return wanted | {"COUNTERS_MAX": "COUNTERS_MAX"}


@pytest.fixture(scope="module")
def c_layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    lines = "".join(
        f'\tprintf("{name} %lu\\n", (unsigned long)({text}));\n'
        for name, text in _expressions().items()
    )
    source = f'#include <stdio.h>\n#include "maps.h"\nint main(void)\n{{\n{lines}\treturn 0;\n}}\n'
    program = build(tmp_path_factory.mktemp("layout"), "layout", source)
    done = subprocess.run([program], capture_output=True, text=True, check=True, timeout=10)
    return {name: int(value) for name, value in (line.split() for line in done.stdout.splitlines())}


@pytest.mark.parametrize("name", sorted(layout.STRUCTS))
def test_twin_matches_header(name: str, c_layout: dict[str, int]) -> None:
    twin = layout.STRUCTS[name]
    assert ctypes.sizeof(twin) == c_layout[name]
    for field, *_ in twin._fields_:
        assert getattr(twin, field).offset == c_layout[f"{name}.{field}"]


@pytest.mark.parametrize("name", sorted(layout.STRUCTS))
def test_structs_have_no_hidden_padding(name: str) -> None:
    twin = layout.STRUCTS[name]
    used = sum(getattr(twin, field).size for field, *_ in twin._fields_)
    assert used == ctypes.sizeof(twin)


def test_limits_match(c_layout: dict[str, int]) -> None:
    assert {name: getattr(layout, name) for name in LIMITS} == {
        name: c_layout[f"limit.{name}"] for name in LIMITS
    }


def test_enums_match(c_layout: dict[str, int]) -> None:
    assert {c.name: c.value for c in layout.Counter} == {
        c.name: c_layout[f"counter.{c.name}"] for c in layout.Counter
    }
    assert len(layout.Counter) == c_layout["COUNTERS_MAX"]
    assert all(mode.value == c_layout[f"mode.{mode.name}"] for mode in layout.PodMode)
    assert all(rule.value == c_layout[f"rule.{rule.name}"] for rule in layout.PlaintextRule)
    assert all(role.value == c_layout[f"role.{role.name}"] for role in layout.ListenerRole)
    assert all(hint.value == c_layout[f"hint.{hint.name}"] for hint in layout.Hint)
    assert all(kind.value == c_layout[f"flow.{kind.name}"] for kind in layout.FlowKind)
    assert {name: spec.id for name, spec in layout.MAPS.items()} == {
        name: c_layout[f"map.{name}"] for name in layout.MAPS
    }


def test_the_zero_value_of_a_pod_lets_nothing_out() -> None:
    assert layout.PodValue().mode == layout.PodMode.CLOSED


def test_every_counter_is_used_by_a_program() -> None:
    text = "".join(path.read_text() for path in HEADERS.glob("*.[ch]") if path.name != "maps.h")
    assert [c.name for c in layout.Counter if f"COUNTER_{c.name}" not in text] == []


def test_the_layout_hash_names_a_folder_and_is_stable() -> None:
    assert layout.layout_hash() == layout.layout_hash()
    assert len(layout.layout_hash()) == 12
    assert "." not in layout.layout_hash()  # bpffs refuses dots
