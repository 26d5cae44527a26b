"""Messages by name: decoded when used, once."""

from __future__ import annotations

import pytest

from control.kit.errors import WireError
from control.model.workload import Service, Workload
from tests.support.engine.meshes import entry, pod, service
from ztunnel.mesh.table import Table


def test_a_value_is_decoded_once_and_anew_after_a_change() -> None:
    table = Table(Workload)
    web = pod("web", "10.0.0.2")
    table.put(web.uid, entry(web).body)
    assert table.value(web.uid) == web
    assert table.value(web.uid) is table.value(web.uid)
    moved = pod("web", "10.0.0.3")
    table.put(web.uid, entry(moved).body)
    assert table.value(web.uid) == moved
    assert table.pop(web.uid) == entry(moved).body
    assert table.value(web.uid) is table.pop(web.uid) is None


@pytest.mark.parametrize("raw", [b"\xff", entry(service("web")).body], ids=["junk", "a service"])
def test_what_is_no_workload_is_an_error_alone_and_left_out_of_all(raw: bytes) -> None:
    table = Table(Workload)
    table.put("bad", raw)
    web = pod("web", "10.0.0.2")
    table.put(web.uid, entry(web).body)
    with pytest.raises(WireError):
        table.value("bad")
    assert list(table.each()) == [web]
    assert list(Table(Service).each()) == []
