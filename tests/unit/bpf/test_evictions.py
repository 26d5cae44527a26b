"""No table whose entries keep somebody out may forget them: bpf/README.md says which are which."""

from __future__ import annotations

from pathlib import Path

import bpf
from bpf.layout import MAPS, MapType

README = Path(bpf.__file__).with_name("README.md").read_text()
ROWS = {
    cells[0].strip("` "): cells[1].strip()
    for line in README.partition("## Entries that are missing")[2].splitlines()
    if line.startswith("| `")
    for cells in [line.strip("|").split("|")]
}
TYPES = {"hash": MapType.HASH, "LRU": MapType.LRU_HASH}
# Without an entry of these a connection passes in the clear, or past a policy.
NEVER_FORGOTTEN = {"pods", "exempt_cgroups", "locals"}


def test_every_table_with_keys_says_what_a_missing_entry_costs() -> None:
    keyed = {name: spec.type for name, spec in MAPS.items() if spec.type in TYPES.values()}
    assert {name: TYPES[kind] for name, kind in ROWS.items()} == keyed


def test_no_table_that_keeps_somebody_out_forgets() -> None:
    assert {MAPS[name].type for name in NEVER_FORGOTTEN} == {MapType.HASH}
