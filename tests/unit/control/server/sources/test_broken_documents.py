"""A document that is not YAML: the others of its file count, and a policy in it denies."""

from __future__ import annotations

import pytest

from control.model.address import Address
from control.model.policy import Connection, Deny, decide
from control.server.compile.mutual_tls import MutualTls
from control.server.compile.policies import compile_authorization_policy
from control.server.compile.population import Population
from control.server.compile.settings import Settings
from control.server.sources import yaml_text
from control.server.sources.folder import Folder
from control.server.sources.objects import MtlsMode, PolicyAction
from control.server.sources.snapshot import Snapshot
from tests.support.manifests import pod, policy

CALL = Connection(None, Address(b"\x0a\0\0\1"), Address(b"\x0a\0\0\2"), 80)
STRICT = """apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
"""
DENY = (
    policy("{action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}]}").strip("-\n") + "\n"
)
POD = pod("web").strip("-\n") + "\n"
# Ways to break a document that nobody can read any more.
FAULTS = {
    "a bracket": "kind: ConfigMap\nmetadata: ]broken\n",
    "an indent": "kind: ConfigMap\n  metadata:\n a: b\n",
    "a key twice": "kind: ConfigMap\nkind: ConfigMap\n",
    "an unknown alias": "kind: ConfigMap\ndata: *nowhere\n",
    "a tab": "kind: ConfigMap\ndata:\n\ta: b\n",
    "an end in the middle": 'kind: ConfigMap\ndata: {a: "b\n',
}


def read(*texts: str, before: str | None = None) -> Snapshot:
    folder = Folder()
    if before is not None:
        folder.load("a.yaml", before.encode())
        folder.snapshot()
    folder.load("a.yaml", "---\n".join(texts).encode())
    return folder.snapshot()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", range(4))
def test_one_broken_document_costs_itself_only(fault: str, place: int) -> None:
    texts = [STRICT, DENY, POD]
    line = "---\n".join([*texts[:place], ""]).count("\n") + 1
    texts.insert(place, FAULTS[fault])
    found = read(*texts)
    (problem,) = found.problems
    assert problem.reason == "yaml"
    assert line <= problem.line <= line + FAULTS[fault].count("\n") + 1
    assert [each.mode for each in found.objects.peer_authentications] == [MtlsMode.STRICT]
    assert [each.broken for each in found.objects.authorization_policies] == [""]
    assert [each.meta.name for each in found.objects.pods] == ["web"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_policy_denies_in_its_namespace(fault: str) -> None:
    text = FAULTS[fault].replace("ConfigMap", "AuthorizationPolicy")
    text += "metadata: {name: p, namespace: shop}\n"
    found = read(POD, text)
    (stand_in,) = found.objects.authorization_policies
    assert stand_in.broken != ""
    assert (stand_in.meta.namespace, stand_in.selector) == ("shop", {})
    assert "everything in its scope is denied" in found.problems[0].message


def test_a_broken_peer_authentication_is_strict() -> None:
    (stand_in,) = read("kind: PeerAuthentication\nmetadata: ]\n").objects.peer_authentications
    assert (stand_in.mode, stand_in.meta.namespace) == (MtlsMode.STRICT, "default")


def test_every_namespace_that_a_broken_document_names_is_guarded() -> None:
    text = "kind: AuthorizationPolicy\n" + "".join(
        f"x: {{namespace: {name}}}\nx: ]\n" for name in ("a", "b")
    )
    found = read(text).objects.authorization_policies
    assert sorted(each.meta.namespace for each in found) == ["a", "b"]


def test_what_a_broken_document_held_before_stays_in_force() -> None:
    before = "---\n".join([STRICT, DENY, POD])
    for fault in FAULTS.values():
        text = fault.replace("ConfigMap", "AuthorizationPolicy")
        found = read(STRICT, text, POD, before=before)
        assert [each.broken for each in found.objects.authorization_policies] == [""]
        assert len(found.objects.peer_authentications) == len(found.objects.pods) == 1
        assert "last good content stays in force" in found.problems[0].message


def test_a_new_broken_policy_beside_old_ones_denies_all_the_same() -> None:
    named = "kind: AuthorizationPolicy\nmetadata: {name: new, namespace: shop}\nspec: ]\n"
    found = read(DENY, named, before=DENY).objects.authorization_policies
    assert sorted(bool(each.broken) for each in found) == [False, True]


def test_an_object_that_leaves_a_repaired_file_is_gone() -> None:
    folder = Folder()
    for text in ("---\n".join([DENY, POD]), "---\n".join([DENY, "a: ]\n"]), DENY):
        folder.load("a.yaml", text.encode())
        found = folder.snapshot()
    assert found.objects.pods == ()
    assert len(found.objects.authorization_policies) == 1


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a: " + b"x" * (4 << 20)])
def test_a_file_that_cannot_be_read_at_all_denies_if_it_may_hold_a_policy(data: bytes) -> None:
    folder = Folder()
    folder.load("a.yaml", b"kind: AuthorizationPolicy\nmetadata: {namespace: shop}\n" + data)
    (stand_in,) = folder.snapshot().objects.authorization_policies
    assert stand_in.meta.namespace == "shop"
    folder.load("b.yaml", b"kind: ConfigMap\n" + data)
    assert len(folder.snapshot().objects.authorization_policies) == 1


@pytest.mark.parametrize("behind", [DENY, POD])
@pytest.mark.parametrize("before", ["", POD])
def test_what_stands_behind_the_bound_of_a_file_may_be_a_policy(
    monkeypatch: pytest.MonkeyPatch, before: str, behind: str
) -> None:
    """Nobody looks at it, so it denies in each namespace."""
    monkeypatch.setattr(yaml_text, "FILE_BYTES_MAX", 2000)
    folder = Folder()
    folder.load("spaces.yaml", SPACES.encode())
    text = f"{before}---\n{{kind: ConfigMap, metadata: {{name: {'x' * 2000}}}}}\n---\n{behind}"
    folder.load("a.yaml", text.encode())
    policies = folder.snapshot().objects.authorization_policies
    assert {each.meta.namespace for each in policies} >= {"shop", "pay", "other"}
    assert all(each.broken for each in policies)
    folder.load("a.yaml", DENY.encode())
    (good,) = folder.snapshot().objects.authorization_policies
    folder.load("a.yaml", text.encode())
    assert folder.snapshot().objects.authorization_policies == (good,), "its last good content"


def test_byte_order_marks_of_joined_files_are_no_fault() -> None:
    found = read(STRICT, "\ufeff" + POD)
    assert found.problems == ()
    assert len(found.objects.pods) == 1


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_byte_order_mark_is_read(codec: str) -> None:
    folder = Folder()
    folder.load("a.yaml", "---\n".join([STRICT, DENY, POD]).encode(codec))
    found = folder.snapshot()
    assert found.problems == ()
    assert [each.mode for each in found.objects.peer_authentications] == [MtlsMode.STRICT]
    assert [each.broken for each in found.objects.authorization_policies] == [""]
    assert [each.meta.name for each in found.objects.pods] == ["web"]


BOTH = "---\n".join([STRICT, DENY])
# Shells that write UTF-16 append it to files of another encoding.
ENCODED = {
    "without a mark": BOTH.encode("utf-16-le"),
    "without a mark, big endian": BOTH.encode("utf-16-be"),
    "cut short": BOTH.encode("utf-16")[:-1],
    "the second one": (STRICT + "---\n").encode() + DENY.encode("utf-16-le"),
    "all but the first letters": STRICT.encode() + f"---\n{DENY}".encode("utf-16-le"),
    "the same, big endian": STRICT.encode() + f"---\n{DENY}".encode("utf-16-be"),
    "with a mark in the middle": STRICT.encode() + f"---\n{DENY}".encode("utf-16"),
    "before UTF-8": BOTH.encode("utf-16") + b"---\n" + BOTH.encode(),
}


@pytest.mark.parametrize("case", ENCODED)
def test_no_encoding_opens_what_a_policy_closes(case: str) -> None:
    folder = Folder()
    folder.load("a.yaml", ENCODED[case])
    found = folder.snapshot()
    assert found.problems != ()
    strict = [each.meta.namespace for each in found.objects.peer_authentications]
    assert "shop" in strict
    assert {each.mode for each in found.objects.peer_authentications} == {MtlsMode.STRICT}
    assert "shop" in {each.meta.namespace for each in found.objects.authorization_policies}


OPEN = policy("{rules: [{}]}", name="open").strip("-\n") + "\n"
UNREADABLE_DENIES = {
    "not YAML": DENY.replace("}]}]}", "}]}]"),
    "a byte that is no text": DENY.replace("bad", "b\udce4d"),
    "an action twice": DENY.replace("action: DENY", "action: DENY, action: ALLOW"),
    "a name that another has": DENY.replace("name: p", "nam: p, name: open").replace(
        "}]}]}", "}]}]"
    ),
    "a slip in the kind": DENY.replace("AuthorizationPolicy", "AuthorisationPolicy"),
    "a slip before the kind": DENY.replace("kind:", "Kind:"),
    "a kind that is a list": DENY.replace("AuthorizationPolicy", "[AuthorizationPolicy]"),
    "an unknown version": DENY.replace("io/v1", "io/v3"),
    "a slip before a name that another has": DENY.replace("kind:", "Kind:").replace(
        "name: p", "name: open"
    ),
    "no spec": DENY.partition("spec:")[0] + "spce: {action: DENY, rules: [{}]}\n",
    "a spec that is text": DENY.partition("spec:")[0] + "spec: DENY\n",
    "a spec that is a list": DENY.partition("spec:")[0] + "spec: [{action: DENY}]\n",
    "a slip in the word": DENY.replace("action: DENY", "acton: DENY"),
}


@pytest.mark.parametrize("fault", UNREADABLE_DENIES)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_may_have_been_a_deny_denies_beside_a_policy_that_allows(
    fault: str, is_first: bool
) -> None:
    folder = Folder()
    text = UNREADABLE_DENIES[fault].encode(errors="surrogateescape")
    folder.load("b.yaml", OPEN.encode())
    folder.load("a.yaml" if is_first else "c.yaml", text)
    found = folder.snapshot().objects.authorization_policies
    compiled = [compile_authorization_policy(each, Settings()).policy for each in found]
    assert len(compiled) == 2
    verdict = decide([each for each in compiled if each is not None], CALL)
    assert isinstance(verdict, Deny)


@pytest.mark.parametrize("fields", ["rules: 5", "action: ALLOW, rules: 5", "action: ALLOW, x: 1"])
def test_what_was_an_allow_leaves_what_others_allow(fields: str) -> None:
    (found,) = read(policy("{" + fields + "}")).objects.authorization_policies
    assert (found.action, bool(found.broken)) == (PolicyAction.ALLOW, True)


def test_a_byte_that_is_no_text_costs_its_own_document_only() -> None:
    folder = Folder()
    texts = [STRICT, POD.replace("web", "w\udce4b"), DENY, POD]
    folder.load("a.yaml", "---\n".join(texts).encode(errors="surrogateescape"))
    found = folder.snapshot()
    (problem,) = found.problems
    line = (STRICT + "---\n" + POD).partition("web")[0].count("\n") + 1
    assert (problem.line, problem.reason) == (line, "yaml")
    assert [each.mode for each in found.objects.peer_authentications] == [MtlsMode.STRICT]
    assert [each.broken for each in found.objects.authorization_policies] == [""]
    assert [each.meta.name for each in found.objects.pods] == ["web"]
    for each in found.problems:
        str(each).encode()


def test_a_broken_policy_without_a_namespace_may_be_for_those_of_its_file() -> None:
    text = "kind: AuthorizationPolicy\nmetadata: {name: x, namespa\nspec: {action: DENY}\n"
    found = read(POD, text, POD.replace("web", "other")).objects.authorization_policies
    assert sorted(each.meta.namespace for each in found) == ["default", "shop"]
    assert all(each.broken and each.action is None for each in found)


@pytest.mark.parametrize(
    "head", ["apiVersion: security.istio.io/v1\nkind: NewPolicy", "apiVersion: v1\nKind: Pod"]
)
def test_what_is_surely_no_policy_denies_nothing(head: str) -> None:
    found = read(f"{head}\nmetadata: {{name: x, namespace: shop}}\nspec: {{}}\n", DENY)
    assert [each.meta.name for each in found.objects.authorization_policies] == ["p"]
    assert [each.reason for each in found.problems] == ["unknown_kind"]


SELECTING = """apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}}
"""


@pytest.mark.parametrize(
    ("spec", "strict"),
    [
        ("{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}", True),  # not YAML
        ("{selector: [web], mtls: {mode: STRICT}}", True),
        ("{selectr: {matchLabels: {app: web}}, mtls: {mode: STRICT}}", True),
        ("STRICT", True),
        ("{mtls: {mode: STRCT}}", False),  # for the whole namespace: a selector goes before it
        ("{selector: {matchLabels: {app: db}}, mtls: {mode: STRCT}}", False),
    ],
)
def test_a_strict_that_may_have_been_for_a_pod_goes_before_what_selects_it(
    spec: str, strict: bool
) -> None:
    broken = STRICT.replace("default", "broken").partition("spec:")[0] + f"spec: {spec}\n"
    found = read(SELECTING, broken).objects.peer_authentications
    assert len(found) == 2
    resolved = MutualTls(Settings(), Population())
    for each in found:
        resolved.put(each.meta.key, each)
    resolved.settle()
    assert bool(resolved.policies_of("shop", {"app": "web"})) is strict


SPACES = "".join(
    f"---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n"
    for name in ("shop", "pay", "other")
)
HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"


@pytest.mark.parametrize(
    ("metadata", "guarded"),
    [
        ("{name: p, namespace: [shop]}", {"shop"}),
        ("{name: p, namespace: {shop: x, pay: y}}", {"shop", "pay"}),
        ("{name: p, namespace: SHOP}", {"shop"}),
        ("{name: p, namespace: 3}", {"shop", "pay", "other", "default"}),
        ("{name: p, namespace: sho_p}", {"shop", "pay", "other", "default"}),
        ("{name: p, namespace: 'pay!'}\nspec: ]", {"pay"}),
        ('{name: p, namespace: sh"op}\nspec: ]', {"shop", "pay", "other", "default"}),
        ("{name: p, namespace: }\nspec: ]", {"default"}),
        ("{name: p}\nspec: ]", {"default"}),
        ("{name: p, namespace: shop}  # pay\nspec: ]", {"shop"}),
    ],
)
def test_a_policy_whose_namespace_cannot_be_told_denies_where_it_may_be_meant(
    metadata: str, guarded: set[str]
) -> None:
    found = read(SPACES, f"{HEAD}metadata: {metadata}\n")
    policies = found.objects.authorization_policies
    assert {each.meta.namespace for each in policies} == guarded
    assert all(each.broken for each in policies)
    assert len(found.problems) == 1


def test_a_namespace_that_comes_later_is_guarded_too() -> None:
    folder = Folder()
    folder.load("a.yaml", f"{HEAD}metadata: {{name: p, namespace: [x]}}\n".encode())
    folder.snapshot()
    folder.load("b.yaml", SPACES.encode())
    found = folder.snapshot().objects.authorization_policies
    assert {each.meta.namespace for each in found} == {"shop", "pay", "other", "default"}
    folder.forget("a.yaml")
    assert folder.snapshot().objects.authorization_policies == ()


def test_a_policy_that_loses_its_namespace_keeps_its_last_good_version() -> None:
    folder = Folder()
    folder.load("a.yaml", (SPACES + "---\n" + DENY).encode())
    (good,) = folder.snapshot().objects.authorization_policies
    text = SPACES + "---\n" + DENY.replace("namespace: shop", "namespace: [shop]")
    folder.load("a.yaml", text.encode())
    found = folder.snapshot()
    assert found.objects.authorization_policies == (good,)
    assert "last good version" in found.problems[0].message
