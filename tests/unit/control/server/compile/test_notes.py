"""Every policy that layer 4 cannot enforce as written has a note; a broken one is a problem."""

from __future__ import annotations

import pytest

from control.server.compile.mesh import compile_mesh
from control.server.compile.settings import Settings
from tests.support.manifests import load, policy

# The text of one rule, by what layer 4 cannot see in it.
LAYER_7 = {
    "methods": "to: [{operation: {methods: [GET]}}]",
    "notMethods": "to: [{operation: {notMethods: [GET]}}]",
    "paths": "to: [{operation: {paths: [/a], ports: ['80']}}]",
    "hosts": "to: [{operation: {hosts: [a.example]}}]",
    "requestPrincipals": "from: [{source: {requestPrincipals: ['*']}}]",
    "remoteIpBlocks": "from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]",
    "request.headers[x]": "when: [{key: 'request.headers[x]', values: [y]}]",
    "request.auth.principal": "when: [{key: request.auth.principal, values: ['*']}]",
    "request.auth.claims[a]": "when: [{key: 'request.auth.claims[a]', values: [b]}]",
    "connection.sni": "when: [{key: connection.sni, values: [a]}]",
}


@pytest.mark.parametrize("name", LAYER_7)
def test_a_dropped_rule_and_its_effect_are_said(name: str) -> None:
    mesh = compile_mesh(
        load(policy(f"{{action: ALLOW, rules: [{{{LAYER_7[name]}}}]}}")).objects,
        Settings(),
        frozenset(),
    )
    dropped, denied = mesh.notes
    assert dropped.object == denied.object == "AuthorizationPolicy shop/p"
    assert name in dropped.message
    assert "the rule is dropped" in dropped.message
    assert "everything in its scope is denied" in denied.message


@pytest.mark.parametrize("name", LAYER_7)
def test_a_deny_that_loses_a_condition_says_so(name: str) -> None:
    text = policy(f"{{action: DENY, rules: [{{{LAYER_7[name]}}}]}}")
    mesh = compile_mesh(load(text).objects, Settings(), frozenset())
    assert name in mesh.notes[0].message
    assert "enforced without" in mesh.notes[0].message


def test_a_broken_policy_hides_no_note_of_another_and_has_none_itself() -> None:
    text = policy("5", name="broken") + policy(
        "{action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}", name="seven"
    )
    found = load(text)
    mesh = compile_mesh(found.objects, Settings(), frozenset())
    assert [each.object for each in found.problems] == ["AuthorizationPolicy shop/broken"]
    assert {each.object for each in mesh.notes} == {"AuthorizationPolicy shop/seven"}


def test_a_policy_that_layer_4_enforces_has_no_note() -> None:
    text = policy("{action: ALLOW, rules: [{to: [{operation: {ports: ['80']}}]}]}")
    assert compile_mesh(load(text).objects, Settings(), frozenset()).notes == ()
