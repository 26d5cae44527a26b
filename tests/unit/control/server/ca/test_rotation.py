"""The change from one root to another: every leaf is trusted by every node, all the time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

import pytest
from cryptography import x509

from control.server.ca.authority import Authority, new_authority
from control.server.ca.rotation import BLANK, LEFT_MIN, Rotation, RotationStep, step
from control.server.ca.secret import BadCaSecret, authority_of, data_of
from tests.support.authorities import CompanyCa
from tests.support.clock import START

DAY = timedelta(hours=24)
LATER = timedelta(hours=25)  # than a day and the slack
OLD, NEW, THIRD = (new_authority("td", START) for _ in range(3))


def stepped(record: Rotation | None, wanted: Authority, after: timedelta) -> RotationStep:
    return step(record, data_of(wanted), "here", now=START + after, carried=DAY)


def roots(found: Authority) -> set[int]:
    return {each.serial_number for each in (found.root, *found.other_roots)}


def serials(*authorities: Authority) -> set[int]:
    return {each.root.serial_number for each in authorities}


def test_the_first_ca_signs_at_once() -> None:
    found = stepped(None, OLD, timedelta())
    assert (found.authority, found.ready_at) == (OLD, None)
    assert stepped(found.record, OLD, DAY).record == found.record


def test_a_new_root_is_trusted_first_signs_a_leafs_life_later_and_then_alone() -> None:
    before = stepped(None, OLD, timedelta())
    announced = stepped(before.record, NEW, timedelta())
    assert announced.authority.issuer == OLD.root
    assert roots(announced.authority) == serials(OLD, NEW)
    assert announced.ready_at is not None
    assert START + DAY < announced.ready_at < START + LATER
    same = stepped(announced.record, NEW, DAY)
    assert same.record == announced.record
    signs = stepped(announced.record, NEW, LATER)
    assert (signs.authority.issuer, signs.ready_at) == (NEW.root, None)
    assert roots(signs.authority) == serials(OLD, NEW)
    assert stepped(signs.record, NEW, LATER + DAY).authority.other_roots
    alone = stepped(signs.record, NEW, 2 * LATER)
    assert alone.authority == NEW
    assert len(alone.record.roots) == 1


def test_a_clock_that_is_ahead_neither_has_a_new_root_sign_nor_an_old_one_go() -> None:
    def ahead(record: Rotation, passed: timedelta) -> RotationStep:
        now = START + timedelta(days=9)
        data, began = data_of(NEW), START + passed
        return step(record, data, "here", now=now, carried=DAY, passed=began)

    announced = stepped(stepped(None, OLD, timedelta()).record, NEW, timedelta())
    early = ahead(announced.record, DAY)
    assert early.authority.issuer == OLD.root
    assert early.ready_at == announced.ready_at
    signs = ahead(early.record, LATER)
    assert (signs.authority.issuer, roots(signs.authority)) == (NEW.root, serials(OLD, NEW))
    assert roots(ahead(signs.record, 2 * LATER).authority) == serials(OLD, NEW), (
        "later, not earlier"
    )


def test_a_root_that_was_in_the_bundle_for_a_day_signs_at_once() -> None:
    both = Authority(OLD.key, OLD.root, (), (NEW.root,))
    first = stepped(stepped(None, OLD, timedelta()).record, both, timedelta())
    assert first.ready_at is None
    assert stepped(first.record, NEW, timedelta(hours=1)).ready_at is not None
    assert stepped(first.record, NEW, LATER).authority.issuer == NEW.root


def test_a_new_intermediate_of_the_same_root_signs_at_once() -> None:
    company = CompanyCa("root", START)
    one, two = (CompanyCa(name, START, company) for name in ("one", "two"))
    chains = [Authority(each.key, company.certificate, (each.certificate,)) for each in (one, two)]
    found = stepped(stepped(None, chains[0], timedelta()).record, chains[1], timedelta())
    assert found.authority == chains[1]


def test_back_to_the_old_root_is_no_change_of_the_signer() -> None:
    announced = stepped(stepped(None, OLD, timedelta()).record, NEW, timedelta())
    back = stepped(announced.record, OLD, timedelta(hours=1))
    assert (back.authority.issuer, back.ready_at) == (OLD.root, None)
    assert stepped(back.record, OLD, 2 * LATER).authority == OLD


def test_a_ca_before_that_cannot_sign_any_more_gives_way_at_once() -> None:
    lasts = 2 * LEFT_MIN
    short = CompanyCa("short", START, lasts=lasts)
    ending = Authority(short.key, short.certificate)
    record = stepped(None, ending, timedelta()).record
    assert stepped(record, NEW, timedelta()).authority.issuer == short.certificate
    assert stepped(record, NEW, LEFT_MIN * 1.5).authority.issuer == NEW.root
    assert stepped(record, NEW, lasts * 2).authority.issuer == NEW.root


def test_a_record_that_was_changed_by_hand_does_no_harm() -> None:
    record = stepped(stepped(None, OLD, timedelta()).record, NEW, timedelta()).record
    broken = Rotation(record.roots, {"tls.crt": "????"})
    assert stepped(broken, NEW, timedelta()).authority.issuer == NEW.root
    strange = Rotation([*record.roots, type(record.roots[0])("no pem")], record.signer)
    assert roots(stepped(strange, NEW, timedelta()).authority) == serials(OLD, NEW)


def test_after_a_mesh_has_left_any_root_signs_at_once() -> None:
    found = stepped(BLANK, NEW, timedelta())
    assert (found.authority, found.ready_at) == (NEW, None)
    assert len(found.record.roots) == 1


def test_a_wanted_ca_that_cannot_be_used_is_refused() -> None:
    leaf = CompanyCa("leaf", START, is_ca=False)
    with pytest.raises(BadCaSecret, match="not a CA"):
        stepped(None, Authority(leaf.key, leaf.certificate), timedelta())


@dataclass
class RenewingNode:
    """A node with one leaf: its issuer's root, all that it trusts, and its next renewal."""

    root: x509.Certificate
    trusted: frozenset[int]
    renews_at: timedelta

    def takes(self, other: RenewingNode) -> bool:
        return other.root.serial_number in self.trusted


@pytest.mark.parametrize("seed", range(6))
def test_no_handshake_is_refused_while_two_replicas_and_many_changes_go_on(seed: int) -> None:
    """Nodes renew at any time of a leaf's life, at either replica. Replicas look at any time within
    a minute of each other, and restart: they know nothing but the record."""
    rng = random.Random(seed)
    wanted, record = OLD, stepped(None, OLD, timedelta()).record
    replicas = [stepped(record, OLD, timedelta()).authority] * 2
    nodes: list[RenewingNode] = []
    for _ in range(8):
        due = timedelta(hours=rng.uniform(0, 24))
        nodes.append(RenewingNode(OLD.root, frozenset(serials(OLD)), due))
    now = timedelta()
    while now < timedelta(hours=240):
        now += timedelta(hours=rng.uniform(0, 1))
        if rng.random() < 0.03:
            wanted = rng.choice((OLD, NEW, THIRD))
        for at in rng.sample((0, 1), 2):
            now += timedelta(minutes=rng.uniform(0, 1))
            found = stepped(record, wanted, now)
            record, replicas[at] = found.record, found.authority
            for node in nodes:
                if node.renews_at <= now:
                    signer = rng.choice(replicas)
                    node.root = signer.root
                    node.trusted = frozenset(roots(signer))
                    node.renews_at = now + timedelta(hours=rng.uniform(1, 22))
            refused = [(a, b) for a in nodes for b in nodes if not a.takes(b)]
            assert not refused


def test_what_the_record_says_can_be_read_back() -> None:
    record = stepped(stepped(None, OLD, timedelta()).record, NEW, timedelta()).record
    assert authority_of(record.signer, "here", START).root == OLD.root
