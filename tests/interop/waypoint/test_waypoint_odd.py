"""Envoy takes what we encode, with any values in it: it would refuse a front's routes as a whole,
and keep the older ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from control.model.http_policy import (
    HttpClause,
    HttpMatch,
    HttpPolicy,
    PathTemplate,
    ValueMatch,
)
from control.model.http_policy import (
    HttpPolicyRule as PolicyRule,
)
from control.model.policy import Action, Match, StringMatch, StringMatchKind
from control.model.route import (
    Cors,
    Destination,
    Front,
    HeaderChange,
    HttpRule,
    Layer,
    Mirror,
    PathKind,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    TextMatch,
    TextMatchKind,
)
from tests.interop.waypoint.conftest import Shop
from tests.support.engine.tunnel_bed import eventually
from tests.support.peers.tunnel_client import ask
from tests.support.waypoint.bed import by_name, front

ODD = (
    *("", " ", "%", "%REQ(x)%", "\\", "\\1", "a\nb", "\0", "\r", "é", "*", "*.", "*.a", "a*b"),
    *("/", "//", "/a/", "/a?b", "/a#b", "?", "(", "[a", "a{2}", "(?i)a", "(a{1000}){1000}", "\\pL"),
    *("host", "Host", ":path", ":authority", "a b", "x" * 5000, "a,b", '"', "a:80", "[::1]"),
    *(
        "{*}",
        "/{*}",
        "/{**}/a",
        "/a{*}",
        "/%",
        "/{**}",
        "/{*}" * 40,
        "/a//",
        "/%zz/{*}",
        "content-length",
        "transfer-encoding",
    ),
)
RULES: dict[str, Callable[[str], dict[str, Any]]] = {
    "prefix": lambda odd: {"match": RequestMatch(odd)},
    "exact": lambda odd: {"match": RequestMatch(odd, PathKind.EXACT)},
    "regex": lambda odd: {"match": RequestMatch(odd, PathKind.REGEX)},
    "method": lambda odd: {"match": RequestMatch(method=odd)},
    "header": lambda odd: {"match": RequestMatch(headers=(TextMatch(odd, odd),))},
    "header value": lambda odd: {"match": RequestMatch(headers=(TextMatch("a", odd),))},
    "header regex": lambda odd: {
        "match": RequestMatch(headers=(TextMatch("a", odd, TextMatchKind.REGEX),))
    },
    "query": lambda odd: {"match": RequestMatch(query=(TextMatch(odd, odd),))},
    "host": lambda odd: {"hosts": (odd, odd.upper())},
    "rewrite host": lambda odd: {"rewrite": Rewrite(odd)},
    "rewrite path": lambda odd: {"rewrite": Rewrite(path=odd)},
    "rewrite prefix": lambda odd: {"match": RequestMatch("/a"), "rewrite": Rewrite(prefix=odd)},
    "redirect": lambda odd: {"redirect": Redirect(scheme="https", hostname=odd, path=odd)},
    "redirect scheme": lambda odd: {"redirect": Redirect(scheme=odd)},
    "redirect prefix": lambda odd: {"redirect": Redirect(prefix=odd)},
    "set": lambda odd: {"request_headers": HeaderChange(set=((odd, odd),))},
    "add": lambda odd: {"response_headers": HeaderChange(add=(("a", odd),))},
    "remove": lambda odd: {"request_headers": HeaderChange((odd,))},
    "of a destination": lambda odd: {
        "destinations": (Destination("a", 1, HeaderChange((odd,), ((odd, odd),))),)
    },
    "backend": lambda odd: {"destinations": (Destination(odd, 1), Destination("b", 1))},
    "mirror": lambda odd: {"mirrors": (Mirror(odd, 7.0),)},
    "cors": lambda odd: {"cors": Cors((odd,), (odd,), (odd,), (odd,))},
    "name": lambda odd: {"name": odd},
}
POLICIES: dict[str, Callable[[str], HttpMatch]] = {
    "template": lambda odd: HttpMatch(paths=(PathTemplate(odd),)),
    "named": lambda odd: HttpMatch(headers=(ValueMatch((odd,), (exact(odd),)),)),
    "account": lambda odd: HttpMatch(l4=Match(principals=(exact(odd),), namespaces=(exact(odd),))),
    **{
        f"texts {kind.name}": lambda odd, kind=kind: texts(StringMatch(kind, odd))
        for kind in StringMatchKind
    },
}


def exact(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.EXACT, text)


def texts(text: StringMatch) -> HttpMatch:
    some, l4 = (text,), Match(principals=(text,), namespaces=(text,), not_namespaces=(text,))
    header = ValueMatch(("a",), some, some)
    return HttpMatch(l4, methods=some, paths=some, hosts=some, not_hosts=some, headers=(header,))


def fronts() -> list[Front]:
    made = []
    for number, odd in enumerate(ODD):
        for kind, rule in RULES.items():
            given = {"name": "r", "destinations": (Destination("shop/v1:80"),), **rule(odd)}
            rules = (HttpRule(**given), HttpRule("last"))
            made.append((f"{kind}-{number}", {"rules": rules}))
        for kind, match in POLICIES.items():
            clause = (PolicyRule((HttpClause((match(odd),)),)),)
            some = tuple(HttpPolicy(odd, action, clause) for action in Action)
            made.append((f"{kind}-{number}", {"policies": some}))
            made.append((f"tcp-{kind}-{number}", {"policies": some, "layer": Layer.TCP}))
    for number, (attempts, backoff, timeout) in enumerate(
        ((0, 0.0, 0.0), (99, 1e-9, 1e-9), (1, 3600.0, 1e6))
    ):
        retry = Retry(attempts, (0, 999), backoff)
        rule = HttpRule("r", destinations=(Destination("a", (1 << 32) - 1),), retry=retry)
        rule = HttpRule(
            "r", destinations=rule.destinations, retry=retry, timeout_s=timeout, try_timeout_s=1e-9
        )
        made.append((f"times-{number}", {"rules": (rule,)}))
    return [
        front(f"odd/{name.replace(' ', '-').lower()}:80", f"10.100.{at >> 8}.{at & 255}", **more)
        for at, (name, more) in enumerate(made)
    ]


@pytest.mark.timeout(60)
def test_envoy_takes_whatever_we_encode(shop: Shop) -> None:
    some = fronts()
    shop.bed.apply(by_name(*some))
    shop.bed.apply(by_name(front("shop/last:80", "10.100.255.1", backend="shop/v1:80")))

    def is_there() -> bool:
        assert [_shown(each) for each in shop.bed.ads.nacks] == []
        with shop.bed.tunnel("shopper", "10.100.255.1:80") as tunnel:
            return tunnel.status == 200 and ask(tunnel).status == 200

    eventually(is_there, "the last one is there")
    assert shop.bed.ads.nacks == []


def _shown(nack: str) -> str:
    """Its front, and why."""
    return f"{nack.partition('name: ')[2][:60]} {nack[-400:]}"
