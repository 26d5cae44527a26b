"""Versions that a client holds: like a dict, whatever it shares; and sessions that share it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.server.xds.cache import Cache
from control.server.xds.holding import Holding
from control.server.xds.session import OWN_MAX, DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE
from tests.unit.control.server.xds.test_session_bounds import make_mesh

NAMES, VERSIONS = st.sampled_from("abcdef"), st.sampled_from(["", "-", "1", "2"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, VERSIONS),
        st.tuples(st.just("pop"), NAMES, VERSIONS),
        st.tuples(st.just("share"), NAMES, VERSIONS),
    )
)


@given(STEPS)
def test_it_says_what_a_dict_would_say(steps: list[tuple[str, str, str]]) -> None:
    held, plain = Holding(), dict[str, str]()
    tables: list[tuple[dict[str, str], dict[str, str]]] = []
    for what, name, version in steps:
        match what:
            case "put":
                held[name] = plain[name] = version
            case "pop":
                assert held.pop(name, None) == plain.pop(name, None)
            case _:
                tables.append((dict(plain), dict(plain)))
                held.share(tables[-1][0])
                assert held.own_count == 0
        assert (dict(held), len(held)) == (plain, len(plain))
        assert held.keys() == plain.keys()
        assert all((each in held) == (each in plain) for each in "abcdefg")
        assert all(held.get(each) == plain.get(each) for each in "abcdefg")
    assert all(table == copy for table, copy in tables), "others have it too"


def opened(cache: Cache, known: dict[str, str] | None = None) -> DeltaSession:
    session = DeltaSession(cache, "n1")
    request = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, initial_resource_versions=known)
    session.receive(request)
    return session


def drained(session: DeltaSession) -> int:
    """Take and acknowledge all there is; the number of resources."""
    count = 0
    while (response := session.take()) is not None:
        count += response.added + response.removed
        session.receive(
            pb.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        )
    return count


def test_clients_that_hold_everything_share_a_table_and_hear_each_change() -> None:
    cache = Cache()
    names = frozenset(f"w{at}" for at in range(2 * OWN_MAX))
    cache.update(make_mesh(names))
    fresh = opened(cache)
    back = opened(cache, dict(cache.versions(ADDRESS_TYPE)))
    assert drained(fresh) == len(names)
    assert drained(back) == 0
    sessions = [fresh, back]
    assert [each.types[ADDRESS_TYPE].known.own_count for each in sessions] == [0, 0]
    for revision, present in (("2", names - {"w1"}), ("2", names), ("3", names - {"w2"})):
        change = cache.update(make_mesh(present, revision))
        for each in sessions:
            each.changed(change)
            assert drained(each) == len(change[ADDRESS_TYPE])
            assert dict(each.types[ADDRESS_TYPE].known) == dict(cache.versions(ADDRESS_TYPE))


def test_a_client_of_some_resources_keeps_its_own_table() -> None:
    cache = Cache()
    names = [f"w{at}" for at in range(2 * OWN_MAX)]
    cache.update(make_mesh(frozenset(names)))
    session = DeltaSession(cache, "n1")
    session.receive(
        pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_subscribe=names[:-1])
    )
    assert drained(session) == len(names) - 1
    assert session.types[ADDRESS_TYPE].known.own_count == len(names) - 1
