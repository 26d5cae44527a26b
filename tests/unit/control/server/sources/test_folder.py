"""Wrong manifests: last good versions and stand-ins stay in force, and problems are clear."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.server.sources import kinds
from control.server.sources.folder import Folder
from control.server.sources.objects import MtlsMode, PolicyAction
from control.server.sources.problem import Problem
from tests.support.manifests import load, pod, policy

GOOD = policy("{action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}]}")
BROKEN = policy("{action: DENY, rules: [{from: [{source: {namspaces: [bad]}}]}]}")


def only(text: str) -> Problem:
    (problem,) = load(text).problems
    return problem


def test_a_list_is_its_items() -> None:
    found = load(
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
        "- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n"
    )
    assert [each.meta.name for each in found.objects.namespaces] == ["a", "b"]
    assert [each.meta.line for each in found.objects.namespaces] == [4, 5]


def test_kinds_that_mean_nothing_here_are_counted_and_passed_over() -> None:
    found = load(
        "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}\n"
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
        "---\n{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: a}}\n"
        "---\n{apiVersion: security.istio.io/v1, kind: RequestAuthentication}\n"
    )
    assert found.problems == ()
    assert found.ignored == {
        "Deployment": 1,
        "ConfigMap": 1,
        "Service": 1,
        "RequestAuthentication": 1,
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{apiVersion: security.istio.io/v1, kind: AuthorisationPolicy}", "unknown_kind"),
        ("{apiVersion: security.istio.io/v1, kind: Whatever}", "unknown_kind"),
        ("{apiVersion: example.com/v1, kind: AuthorizationPolicies}", "unknown_kind"),
        ("{apiVersion: v1, kind: Servce}", "unknown_kind"),
        ("{apiVersion: v2, kind: Pod}", "api_version"),
        ("{kind: Pod}", "unknown_kind"),
        ("{apiVersion: v1, kind: 5}", "invalid"),
        ("{apiVersion: v1, kind: [Pod], metadata: {name: x}}", "invalid"),
        ("{apiVersion: v1, kind: {Pod: x}, metadata: {name: x}}", "invalid"),
        ("{apiVersion: [v1], kind: Pod, metadata: {name: x}}", "invalid"),
        ("{apiVersion: security.istio.io/v1, kind: {AuthorizationPolicy: x}}", "invalid"),
        ("{apiVersion: v1, kind: Pod}", "invalid"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: A_B}}", "invalid"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {a: 1}}}", "invalid"),
        ("just words", "not_an_object"),
        ("[1, 2]", "not_an_object"),
    ],
)
def test_slips_are_problems(text: str, reason: str) -> None:
    assert only(text).reason == reason


def test_a_slip_in_the_kind_comes_with_a_hint() -> None:
    problem = only("apiVersion: security.istio.io/v1\nkind: AuthorisationPolicy")
    assert problem.line == 2
    assert "did you mean AuthorizationPolicy?" in problem.message


def test_a_problem_names_file_line_and_object() -> None:
    problem = only(BROKEN)
    assert str(problem).startswith("a.yaml:6: AuthorizationPolicy shop/p: unknown field")
    assert problem.reason == "unknown_field"


def test_one_bad_document_leaves_the_others_in_force() -> None:
    found = load(pod("a") + BROKEN + pod("b"))
    assert [each.meta.name for each in found.objects.pods] == ["a", "b"]


def test_a_file_that_is_not_yaml_keeps_its_last_good_content() -> None:
    folder = Folder()
    folder.load("a.yaml", pod().encode())
    folder.load("a.yaml", b"a: [")
    found = folder.snapshot()
    assert len(found.objects.pods) == 1
    assert [each.reason for each in found.problems] == ["yaml"]
    folder.load("a.yaml", b"")
    assert folder.snapshot().objects.pods == ()
    assert folder.snapshot().problems == ()


def test_a_refused_object_keeps_its_last_good_version_until_its_document_is_gone() -> None:
    folder = Folder()
    folder.load("a.yaml", GOOD.encode())
    (good,) = folder.snapshot().objects.authorization_policies
    folder.load("a.yaml", BROKEN.encode())
    found = folder.snapshot()
    assert found.objects.authorization_policies == (good,)
    assert "last good version stays" in found.problems[0].message
    folder.forget("a.yaml")
    assert folder.snapshot().objects.authorization_policies == ()
    folder.load("a.yaml", BROKEN.encode())
    (stand_in,) = folder.snapshot().objects.authorization_policies
    assert stand_in.broken


def test_a_policy_that_never_was_good_gets_a_stand_in_of_its_scope() -> None:
    found = load(policy("{selector: {matchLabels: {app: web}}, action: DENY, rules: 5}"))
    (stand_in,) = found.objects.authorization_policies
    assert stand_in.selector == {"app": "web"}
    assert stand_in.action is PolicyAction.DENY
    assert "everything in its scope is denied" in found.problems[0].message


def test_an_unreadable_selector_widens_the_stand_in() -> None:
    (stand_in,) = load(policy("{selector: [x]}")).objects.authorization_policies
    assert stand_in.selector == {}


def test_a_policy_without_a_usable_name_still_denies() -> None:
    found = load(policy("{}", name="A_B"))
    (stand_in,) = found.objects.authorization_policies
    assert stand_in.meta.namespace == "shop"
    assert stand_in.broken
    assert len(found.problems) == 1


def test_policies_without_a_usable_name_all_deny_wherever_they_stand() -> None:
    unnamed = "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, spec: {}}}"
    texts = [unnamed.format(f"{{selector: {{matchLabels: {{app: {app}}}}}}}") for app in "abcd"]
    folder = Folder()
    folder.load("1.yaml", texts[0].encode())
    folder.load("2.yaml", texts[1].encode())  # the same line of another file
    folder.load("3.yaml", f"{{kind: List, items: [{texts[2]}, {texts[3]}]}}".encode())
    found = folder.snapshot()
    policies = found.objects.authorization_policies
    assert sorted(each.selector["app"] for each in policies) == ["a", "b", "c", "d"]
    assert len({each.meta.name for each in policies}) == 4
    assert [each.reason for each in found.problems] == ["invalid"] * 4


def test_a_policy_of_an_unknown_version_still_denies() -> None:
    found = load(GOOD.replace("istio.io/v1", "istio.io/v9"))
    assert found.objects.authorization_policies[0].broken
    assert found.problems[0].reason == "api_version"


def test_a_broken_peer_authentication_is_strict() -> None:
    found = load(policy("{mtls: {mode: STRIKT}}", kind="PeerAuthentication"))
    (stand_in,) = found.objects.peer_authentications
    assert stand_in.mode is MtlsMode.STRICT
    assert "STRICT" in found.problems[0].message


def test_of_two_with_one_name_the_first_by_file_and_line_stays() -> None:
    folder = Folder()
    folder.load("b.yaml", pod(labels="from: b").encode())
    folder.load("a.yaml", (pod(labels="from: a1") + pod(labels="from: a2")).encode())
    found = folder.snapshot()
    assert [each.meta.labels["from"] for each in found.objects.pods] == ["a1"]
    assert [(each.file, each.reason) for each in found.problems] == [
        ("a.yaml", "duplicate"),
        ("b.yaml", "duplicate"),
    ]


def test_an_unreadable_file_keeps_its_content() -> None:
    folder = Folder()
    folder.load("a.yaml", pod().encode())
    folder.unreadable("a.yaml", "cannot be read")
    assert len(folder.snapshot().objects.pods) == 1
    assert folder.snapshot().problems[0].reason == "unreadable"


def test_a_stand_in_outlives_a_file_that_becomes_unreadable() -> None:
    folder = Folder()
    folder.load("a.yaml", BROKEN.encode())
    folder.load("a.yaml", b"[[[ {")  # no word of it says policy
    (stand_in,) = folder.snapshot().objects.authorization_policies
    assert stand_in.broken
    folder.load("a.yaml", b"")
    assert folder.snapshot().objects.authorization_policies == ()


# A good object of each kind, and one that is refused under the same name.
VERSIONS = {
    "Pod": (pod(), pod().replace("podIP: 10.1.0.1", "podIPs: [true]")),
    "Service": tuple(
        f"{{apiVersion: v1, kind: Service, metadata: {{name: a, namespace: b}}, spec: {spec}}}"
        for spec in ("{ports: [{port: 80}]}", "{ports: 5}")
    ),
    "AuthorizationPolicy": (GOOD, BROKEN),
    "PeerAuthentication": tuple(
        policy(f"{{mtls: {{mode: {mode}}}}}", kind="PeerAuthentication")
        for mode in ("STRICT", "STRIKT")
    ),
}


@pytest.mark.parametrize("steps", list(product(("refused", "not yaml", "unreadable"), repeat=3)))
@pytest.mark.parametrize("kind", VERSIONS)
def test_the_last_good_version_outlives_whatever_the_file_becomes(
    kind: str, steps: tuple[str, ...]
) -> None:
    good, refused = VERSIONS[kind]
    folder = Folder()
    folder.load("a.yaml", good.encode())
    found = folder.snapshot().objects
    assert sum(found.counts().values()) == 1
    for step in steps:
        if step == "unreadable":
            folder.unreadable("a.yaml", "gone for a moment")
        else:
            folder.load("a.yaml", refused.encode() if step == "refused" else b"[[[ {")
        now = folder.snapshot()
        assert now.objects == found, (step, steps)
        assert now.problems, step


def test_unreadable_policies_of_two_files_both_deny() -> None:
    folder = Folder()
    for file in ("a.yaml", "b.yaml"):
        folder.load(file, b"{kind: AuthorizationPolicy")
    found = folder.snapshot()
    assert len(found.objects.authorization_policies) == 2
    assert [each.reason for each in found.problems] == ["yaml", "yaml"]


def test_a_bug_in_a_reader_costs_the_object_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(document: object, meta: object) -> None:
        raise TypeError("nobody thought of this")

    for kind in ("Node", "AuthorizationPolicy"):
        known = kinds.KINDS[kind]
        monkeypatch.setitem(kinds.KINDS, kind, replace(known, read=fail))
    found = load("{apiVersion: v1, kind: Node, metadata: {name: a}}\n" + GOOD + pod())
    assert ["TypeError" in each.message for each in found.problems] == [True, True]
    assert [bool(each.broken) for each in found.objects.authorization_policies] == [True]
    assert len(found.objects.pods) == 1


FILES = ("a.yaml", "b.yaml", "c.yaml")
READABLE = (
    pod("a"),
    pod("b"),
    pod("b", address="10.1.0.2"),
    GOOD,
    GOOD.replace("DENY", "ALLOW"),
    "\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n",
)
UNREADABLE = (BROKEN, "\n---\nkind: AuthorizationPolicy: [\n", "\n---\n]: x\n", "\n---\n3\n")


def steps(*documents: str) -> st.SearchStrategy[list[tuple[str, list[str] | None, bool]]]:
    """Files that come, change and go, and a moment at which the folder is asked."""
    content = st.none() | st.lists(st.sampled_from(documents), max_size=4)
    return st.lists(st.tuples(st.sampled_from(FILES), content, st.booleans()), max_size=12)


def take(folder: Folder, file: str, content: list[str] | None) -> None:
    if content is None:
        folder.forget(file)
    else:
        folder.load(file, "".join(content).encode())


@settings(max_examples=60)
@given(steps(*READABLE))
def test_a_folder_in_steps_is_as_one_that_was_read_at_once(
    found: list[tuple[str, list[str] | None, bool]],
) -> None:
    folder, last = Folder(), dict[str, list[str] | None]()
    for file, content, is_asked in found:
        take(folder, file, content)
        last[file] = content
        if is_asked:
            folder.snapshot()
    whole = Folder()
    for file, content in last.items():
        take(whole, file, content)
    ours, theirs = folder.snapshot(), whole.snapshot()
    assert ours.objects == theirs.objects
    assert (ours.problems, ours.ignored) == (theirs.problems, theirs.ignored)


@settings(max_examples=60)
@given(steps(*READABLE, *UNREADABLE))
def test_what_has_changed_adds_up_to_what_is_in_force(
    found: list[tuple[str, list[str] | None, bool]],
) -> None:
    folder, sum_of_changes = Folder(), {}
    for file, content, is_asked in [*found, ("z.yaml", None, True)]:
        take(folder, file, content)
        if is_asked:
            snapshot = folder.snapshot()
            sum_of_changes.update(snapshot.changed)
            there = {key: each for key, each in sum_of_changes.items() if each is not None}
            assert there == {each.meta.key: each for each in snapshot.objects}


def test_a_change_costs_what_it_changes_and_names_nothing_else() -> None:
    folder = Folder()
    folder.load("a.yaml", (pod("a") + pod("b")).encode())
    folder.load("b.yaml", pod("c").encode())
    folder.snapshot()
    folder.load("a.yaml", (pod("a") + pod("b", address="10.1.0.9")).encode())
    snapshot = folder.snapshot()
    assert [key.name for key in snapshot.changed] == ["b"]
    assert folder.snapshot().changed == {}
