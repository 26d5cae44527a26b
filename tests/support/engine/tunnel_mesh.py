"""Meshes of a few workloads as the ztunnel's `State`, from model values, through the wire form."""

from __future__ import annotations

from collections.abc import Iterable

from control.model.policy import Policy
from control.model.workload import Service, Workload
from control.wire.convert import resource_to_wire
from control.wire.convert_policy import policy_to_wire
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State


def address_entry(value: Workload | Service) -> Entry:
    name = value.uid if isinstance(value, Workload) else value.key
    return Entry(Op.ADDRESS, name, resource_to_wire(value).SerializeToString())


def policy_entry(policy: Policy) -> Entry:
    return Entry(Op.POLICY, policy.key, policy_to_wire(policy).SerializeToString())


def mesh_entries(*values: Workload | Service, policies: Iterable[Policy] = ()) -> list[Entry]:
    entries = [address_entry(value) for value in values]
    entries += [policy_entry(policy) for policy in policies]
    return [*entries, Entry(Op.SNAPSHOT)]


def mesh_state(*values: Workload | Service, policies: Iterable[Policy] = ()) -> State:
    state = State()
    state.apply(mesh_entries(*values, policies=policies))
    return state
