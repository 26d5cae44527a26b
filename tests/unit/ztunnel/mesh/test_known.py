"""Names that were answered, where addresses come on demand."""

from __future__ import annotations

from control.model.address import parse_address
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.known import KnownNames, address_name


def test_names_are_those_of_the_protocol() -> None:
    assert address_name("net", parse_address("10.0.0.1")) == "net/10.0.0.1"
    assert address_name("", parse_address("fd00::1")) == "/fd00::1"


def test_where_everything_comes_unasked_every_name_is_known() -> None:
    assert "/10.0.0.1" in KnownNames()
    assert list(KnownNames().entries()) == []


def test_on_demand_a_name_is_known_from_its_answer_on() -> None:
    subject = KnownNames()
    assert subject.apply(Entry(Op.ON_DEMAND))
    assert "/10.0.0.1" not in subject
    assert not subject.apply(Entry(Op.KNOWN, "/10.0.0.1")), "nothing was decided without it"
    assert "/10.0.0.1" in subject
    assert subject.apply(Entry(Op.UNKNOWN, "/10.0.0.1")), "decisions rest on it"
    assert "/10.0.0.1" not in subject


def test_a_new_worker_is_brought_to_the_same() -> None:
    subject, copy = KnownNames(), KnownNames()
    for each in (Entry(Op.ON_DEMAND), Entry(Op.KNOWN, "a"), Entry(Op.KNOWN, "b")):
        subject.apply(each)
    for each in subject.entries():
        copy.apply(each)
    assert ("a" in copy, "b" in copy, "c" in copy) == (True, True, False)


def test_back_to_everything() -> None:
    subject = KnownNames()
    subject.apply(Entry(Op.ON_DEMAND))
    subject.apply(Entry(Op.KNOWN, "a"))
    assert subject.apply(Entry(Op.ALL))
    assert "other" in subject
    assert len(subject) == 0
    assert not subject.apply(Entry(Op.ALL))
