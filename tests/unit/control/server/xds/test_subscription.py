"""The common parts of subscriptions."""

from __future__ import annotations

from control.server.xds.subscription import NOTHING, Due, Unserved
from control.wire.delta import Word


def test_something_is_due_when_there_is_a_resource_or_a_name() -> None:
    assert not NOTHING
    assert Due(added=("x",))
    assert Due(removed=("x",))


def test_a_type_that_is_not_served_is_empty() -> None:
    way = Unserved("x.y")
    way.changed(())
    assert (way.due(), way.has_news, way.estimate_bytes()) == (NOTHING, False, 0)
    response = way.take(with_removed=True)("n", Word.MORE)
    assert (response.type_url, response.nonce, response.added) == ("x.y", "n", 0)
