"""Mistyped labels of ours are told, those of others are nobody's business."""

from __future__ import annotations

import pytest

from tests.support.manifests import mesh


def namespace(labels: str) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{labels}}}}}\n"


def pod(name: str, labels: str) -> str:
    return (
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, "
        f"labels: {{{labels}}}}}\nspec: {{nodeName: n1}}\n"
    )


@pytest.mark.parametrize(
    "labels",
    [
        "tulle.io/dataplane-mode: ambient",
        "istio.io/dataplane-mode: none",
        "tulle.io/path: direct",
        "tulle.io/path: tunnel",
        "app: web, example.org/dataplane-mode: yes-please",
    ],
)
def test_nothing_to_say(labels: str) -> None:
    assert mesh(namespace(labels) + pod("a", labels)).notes == ()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            "tulle.io/dataplane-mode: ambeint",
            "label tulle.io/dataplane-mode: 'ambeint' is neither ambient nor none; "
            "it counts as no label",
        ),
        (
            "istio.io/dataplane-mode: Ambient",
            "label istio.io/dataplane-mode: 'Ambient' is neither ambient nor none; "
            "it counts as no label",
        ),
        (
            "tulle.io/path: tunel",
            "label tulle.io/path: 'tunel' is neither direct nor tunnel; it counts as tunnel",
        ),
        (
            "tulle.io/dataplan-mode: ambient",
            "label tulle.io/dataplan-mode is not known, did you mean tulle.io/dataplane-mode?; "
            "it has no effect",
        ),
    ],
)
def test_a_typo_is_told_with_its_object(labels: str, said: str) -> None:
    (found,) = mesh(namespace(labels)).notes
    assert (found.object, found.line, found.message) == ("Namespace shop", 1, said)


def test_pods_that_say_the_same_share_a_note() -> None:
    wrong = "tulle.io/path: tunel"
    text = "".join(pod(f"web-{number}", wrong) for number in range(50))
    (found,) = mesh(namespace("a: b") + text).notes
    assert found.object == "Pod shop/web-0"
    assert found.message.endswith("it counts as tunnel (and 49 more pods)")
