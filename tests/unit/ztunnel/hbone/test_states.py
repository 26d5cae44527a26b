"""The table of states: complete, as its own page shows it, and as RFC 9113 draws it."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ztunnel
from ztunnel.hbone import states
from ztunnel.hbone.states import Half, StreamState

NAMED = {name: row for name, row in vars(states).items() if isinstance(row, StreamState)}
INPUTS = ("sent headers", "sent end", "received headers", "received end")


def after(state: StreamState, name: str) -> StreamState | None:
    found: StreamState | None = getattr(state, f"after_{name.replace(' ', '_')}")
    return found


# -- the table against its page ------------------------------------------------------------------


def page_rows() -> list[list[str]]:
    """Cells of the table on top of `states`."""
    source = (Path(ztunnel.__file__).parent / "hbone/states.py").read_text()  # compiled: no __doc__
    text = source.partition("may receive\n")[2].partition("\n\n")[0]
    return [
        line.replace("half-closed (", "half-closed(").replace(") ", ")  ").split()
        for line in text.splitlines()
    ]


def test_the_page_shows_each_state_as_it_is() -> None:
    rows = page_rows()
    assert {row[0] for row in rows} == NAMED.keys()
    for name, local, remote, _, sends, receives in rows:
        state = NAMED[name]
        assert (state.local.value, state.remote.value) == (local, remote)
        assert (state.sendable, state.receivable) == (sends == "DATA", receives == "DATA")


def test_there_is_one_state_for_each_pair_of_halves() -> None:
    assert len(NAMED) == 9
    assert {(row.local, row.remote) for row in NAMED.values()} == set(product(Half, Half))


# -- the table against RFC 9113 ------------------------------------------------------------------

# Figure 2 of section 5.1, without push: H is HEADERS, ES is END_STREAM, in either direction.
FIGURE_2 = {
    ("idle", "sent headers"): "open",
    ("idle", "received headers"): "open",
    ("open", "sent end"): "half-closed(local)",
    ("open", "received end"): "half-closed(remote)",
    ("half-closed(remote)", "sent end"): "closed",
    ("half-closed(local)", "received end"): "closed",
}


@dataclass(frozen=True)
class Model:
    """A stream as the RFC has it, and which messages have begun and ended on it (section 8.1)."""

    rfc: str = "idle"
    seen: frozenset[str] = frozenset()

    def after(self, name: str) -> "Model | None":
        """The stream after an input; None: the RFC or HTTP's order of messages forbids it."""
        side, _, part = name.partition(" ")
        begun = f"{side} headers" in self.seen
        if self.rfc == "closed" or name in self.seen or (part == "end") != begun:
            return None
        found = FIGURE_2.get((self.rfc, name))
        if found is None and part == "end":
            return None
        return replace(self, rfc=found or self.rfc, seen=self.seen | {name})


@given(st.lists(st.sampled_from(INPUTS), max_size=12))
def test_any_walk_through_the_table_is_a_walk_through_figure_2(walk: list[str]) -> None:
    state, model = states.IDLE, Model()
    rfc_names = {row[0]: row[3] for row in page_rows()}
    for name in walk:
        next_state, next_model = after(state, name), model.after(name)
        assert (next_state is None) == (next_model is None), (state, name)
        if next_state is not None and next_model is not None:
            state, model = next_state, next_model
        (own_name,) = (each for each, row in NAMED.items() if row is state)
        assert rfc_names[own_name] == model.rfc
        assert state.answered == {"sent headers", "received headers"}.issubset(model.seen)


@pytest.mark.parametrize("name", NAMED)
def test_an_input_moves_one_half_by_one_step_or_none(name: str) -> None:
    state = NAMED[name]
    steps = {Half.WAITING: Half.OPEN, Half.OPEN: Half.ENDED, Half.ENDED: None}
    ours = {after(state, "sent headers"), after(state, "sent end")} - {None}
    theirs = {after(state, "received headers"), after(state, "received end")} - {None}
    assert {(row.local, row.remote) for row in ours if row} == (
        {(steps[state.local], state.remote)} if steps[state.local] else set()
    )
    assert {(row.local, row.remote) for row in theirs if row} == (
        {(state.local, steps[state.remote])} if steps[state.remote] else set()
    )
