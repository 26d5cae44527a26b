"""The intent has the fields of its message, no more and no fewer."""

from __future__ import annotations

from dataclasses import fields

from control.model.intent import Intent
from control.wire import node_pb2


def test_no_field_of_the_message_is_forgotten() -> None:
    message = {field.name for field in node_pb2.Pod.DESCRIPTOR.fields}
    assert {field.name for field in fields(Intent)} == message
