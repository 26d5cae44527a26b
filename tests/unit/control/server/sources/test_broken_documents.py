"""A document that is not YAML: the others of its file count, and a policy in it denies."""

from __future__ import annotations

import pytest

from control.server.sources.folder import Folder, Snapshot
from control.server.sources.objects import MtlsMode
from tests.support.manifests import pod, policy

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
