from __future__ import annotations

from typing import Any

import pytest

from control.model.route import (
    Destination,
    HeaderChange,
    HttpRule,
    Mirror,
    PathKind,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
)
from control.server.envoy import actions
from control.server.envoy.letters import Unspeakable
from control.server.envoy.names import NOWHERE
from tests.unit.control.server.envoy.worlds import front

TO = (Destination("shop/web:80"),)


def of(**more: Any) -> dict[str, Any]:
    return actions.of_rule(HttpRule("r", **{"destinations": TO, **more}), front())


def test_a_backend_that_cannot_be_had_is_a_cluster_that_is_not_there() -> None:
    made = of(destinations=(Destination(""),))["route"]
    assert made["cluster"] == NOWHERE
    assert made["cluster_not_found_response_code"] == "INTERNAL_SERVER_ERROR"


@pytest.mark.parametrize("none", [(), (Destination("a", 0),)])
def test_no_destination_is_500(none: tuple[Destination, ...]) -> None:
    assert of(destinations=none) == {"direct_response": {"status": 500}}


def test_weights_of_nothing_are_left_out() -> None:
    some = (Destination("a", 3), Destination("b", 0), Destination("c", 1))
    shares = of(destinations=some)["route"]["weighted_clusters"]["clusters"]
    assert [(each["name"], each["weight"]) for each in shares] == [("a", 3), ("c", 1)]


def test_no_timeout_is_none_and_not_envoys_own() -> None:
    assert of()["route"]["timeout"] == "0.000s"
    assert of(timeout_s=1.5)["route"]["timeout"] == "1.500s"


def test_a_request_that_was_never_sent_is_sent_again_by_default() -> None:
    policy = of()["route"]["retry_policy"]
    assert policy["retry_on"] == "connect-failure,refused-stream,reset-before-request"
    named = of(retry=Retry(1, (502,), 0.1))["route"]["retry_policy"]
    assert (named["num_retries"], named["retriable_status_codes"]) == (1, [502])
    assert named["retry_back_off"] == {"base_interval": "0.100s", "max_interval": "1.000s"}
    assert of(try_timeout_s=2)["route"]["retry_policy"]["per_try_timeout"] == "2.000s"


def test_a_percent_sign_is_no_variable() -> None:
    (added,) = of(request_headers=HeaderChange(set=(("a", "%REQ(b)%"),)))["request_headers_to_add"]
    assert added["header"]["value"] == "%%REQ(b)%%"


@pytest.mark.parametrize("name", ["Host", ":path", "a b"])
def test_headers_that_envoy_does_not_change(name: str) -> None:
    pair = ((name, "v"),)
    for change in (HeaderChange((name,)), HeaderChange(set=pair), HeaderChange(add=pair)):
        with pytest.raises(Unspeakable):
            of(request_headers=change)


@pytest.mark.parametrize(
    "more",
    [
        {"request_headers": HeaderChange(set=(("a", "b\nc"),))},
        {"destinations": (Destination("a", 1 << 31), Destination("b", 1 << 31))},
        {"rewrite": Rewrite("a b")},
        {"rewrite": Rewrite(path="/a\n")},
        {"redirect": Redirect(hostname="*x")},
    ],
)
def test_what_envoy_would_refuse_is_refused_here(more: dict[str, Any]) -> None:
    with pytest.raises(Unspeakable):
        of(**more)


def test_a_pause_of_nothing_is_the_shortest() -> None:
    policy = of(retry=Retry(1, (), 0))["route"]["retry_policy"]
    assert policy["retry_back_off"] == {"base_interval": "0.001s", "max_interval": "0.010s"}


@pytest.mark.parametrize(
    ("redirect", "made"),
    [
        (Redirect(), {}),
        (Redirect(scheme="https"), {"scheme_redirect": "https"}),
        (Redirect(scheme="https", port=443), {"scheme_redirect": "https"}),
        (Redirect(port=8443), {"port_redirect": 8443}),
        (Redirect(port=80), {}),
        (Redirect(path=""), {"path_redirect": "/"}),
        (Redirect(hostname="h"), {"host_redirect": "h"}),
    ],
)
def test_redirects(redirect: Redirect, made: dict[str, Any]) -> None:
    assert of(redirect=redirect)["redirect"] == {"response_code": "FOUND", **made}


def test_a_redirect_to_another_host_keeps_the_fronts_port() -> None:
    rule = HttpRule("r", redirect=Redirect(hostname="h"))
    made = actions.of_rule(rule, front("shop/web:8080"))["redirect"]
    assert made["port_redirect"] == 8080


def test_a_status_that_is_no_redirect() -> None:
    with pytest.raises(Unspeakable):
        of(redirect=Redirect(200))


@pytest.mark.parametrize(
    ("path", "prefix", "made"),
    [
        ("/a", "/b", {"prefix_rewrite": "/b"}),
        ("/a", "/b/", {"prefix_rewrite": "/b"}),
        ("/", "/b", {"prefix_rewrite": "/b/"}),
        ("/", "/", {}),
    ],
)
def test_a_prefix_is_replaced_by_whole_segments(
    path: str, prefix: str, made: dict[str, Any]
) -> None:
    route = of(match=RequestMatch(path), rewrite=Rewrite(prefix=prefix))["route"]
    assert {key: route[key] for key in route if "rewrite" in key} == made


def test_a_prefix_that_is_cut_leaves_one_slash() -> None:
    route = of(match=RequestMatch("/a.b"), rewrite=Rewrite(prefix="/"))["route"]
    assert route["regex_rewrite"] == {
        "pattern": {"regex": r"^/a\.b/*(.*)"},
        "substitution": r"/\1",
    }


def test_a_prefix_needs_one_to_replace() -> None:
    match = RequestMatch("/a", PathKind.EXACT)
    with pytest.raises(Unspeakable):
        of(match=match, rewrite=Rewrite(prefix="/b"))


def test_a_mirror_takes_its_share() -> None:
    (mirror,) = of(mirrors=(Mirror("m", 0.25),))["route"]["request_mirror_policies"]
    share = {"numerator": 250_000, "denominator": "MILLION"}
    assert mirror == {"cluster": "m", "runtime_fraction": {"default_value": share}}
