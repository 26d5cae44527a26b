"""Random objects for the policy fuzzer: few names, addresses and ports, so that they collide.

Now and then a value is one that no API server would take.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.fuzz.policy_contents import Options
from tests.fuzz.policy_form import OPERATION_LAYER_7, SOURCE_LAYER_7, Tree
from tests.fuzz.policy_found import POLICIES

BAD_SHARE = 0.01  # one value in a hundred

# One of each is frequent, so that objects meet.
NAMESPACES = ("a", "a", "a", "ab", "b")
DOMAINS = ("cluster.local", "td", "td.b")
ACCOUNTS = ("a", "a", "a", "ab", "b", "default")
LABELS = ("app", "tier")
VALUES = ("a", "b", "")
POD_ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1", "fd00::2", "::ffff:10.0.0.3")
PORTS = (80, 80, 80, 8080, 1, 65535)
STAMPS = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-02-01T00:00:00Z")
PROTOCOLS = ("TCP", "TCP", "TCP", "UDP")
MODES = ("UNSET", "DISABLE", "PERMISSIVE", "STRICT")

BLOCKS = (
    "10.0.0.1",
    "10.0.0.1/32",
    "10.0.0.3/31",  # a bit behind the prefix
    "10.0.0.0/24",
    "10.0.5.7/8",
    "0.0.0.0/0",
    "1.2.3.4/0",
    "127.0.0.1",
    "fd00::1",
    "fd00::/16",
    "fd00::7/64",
    "::/0",
    "::1/128",
    "::ffff:10.0.0.1",
    "::ffff:10.0.0.0/104",
    "::ffff:0:0/96",
)
BAD_BLOCKS = (
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "10.0.0.0/08",
    "10.0.0.0/",
    "10.0.0.0/8/8",
    "10.0.0",
    "010.0.0.1",
    " 10.0.0.1",
    "fe80::1%eth0",
    "fd00::%1/64",
    "::ffff:10.0.0.0/90",
    "fd00::/129",
    "10.0.0.\u0661",
    "*",
    "",
)
PORT_TEXTS = tuple(map(str, PORTS))
BAD_PORTS = (
    "080",
    "0",
    "65536",
    "-1",
    "+80",
    " 80",
    "80.0",
    "0x50",
    "\u0668\u0660",
    "http",
    "",
    80,
)
BAD_WORDS = ("", 5, True, None, ["a"], {"a": "b"})
BAD_ACCOUNTS = ("*", "a/*", "/a", "a/", "a/b/c", "", 5, "a" * 321)
LAYER_7_KEYS = (
    "request.headers[x]",
    "request.auth.claims[a][b]",
    "connection.sni",
    "remote.ip",
    "source.trustDomain",
    "experimental.envoy.filters.x[y]",
)
BAD_KEYS = ("source.ipp", "destination.labels[x]", "request.headers", "source.user", "", None)


class Objects:
    """Makes one object after the other, as one source of chance has it."""

    def __init__(self, chance: random.Random, options: Options) -> None:
        self._random = chance
        self._options = options

    def _object(self, kind: str, name: str, namespaces: Sequence[str], spec: Tree) -> Tree:
        version = "security.istio.io/v1" if kind in POLICIES else "v1"
        meta: Tree = {"name": name, "namespace": self._random.choice(namespaces)}
        return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}

    def pod(self, name: str) -> Tree:
        chance = self._random
        tree = self._object("Pod", name, NAMESPACES, {"nodeName": "n1"})
        tree["metadata"]["labels"] = self.labels()
        if chance.random() < 0.8:
            tree["spec"]["serviceAccountName"] = chance.choice(ACCOUNTS)
        ports = [{"name": "web", "containerPort": chance.choice(PORTS)}]
        tree["spec"]["containers"] = [{"name": "c", "ports": ports}]
        ips = chance.sample(POD_ADDRESSES, chance.choice((1, 1, 2)))
        tree["status"] = {"podIPs": [{"ip": each} for each in ips]}
        if chance.random() < 0.05:
            tree["status"]["phase"] = chance.choice(("Running", "Pending", "Failed"))
        return tree

    def service(self) -> Tree:
        chance = self._random
        ports: list[Tree] = [{"name": "p", "port": 80}, {"name": "q", "port": 81}]
        for each in ports:
            if chance.random() < 0.7:
                each["targetPort"] = chance.choice((*PORTS, "web", "other"))
        spec = {"selector": self.labels(), "ports": ports, "clusterIP": "10.9.0.1"}
        tree = self._object("Service", chance.choice("st"), NAMESPACES, spec)
        # Other kinds of addresses, some of them a pod's.
        match chance.randrange(8):
            case 0:
                spec["clusterIP"] = chance.choice(POD_ADDRESSES)
            case 1:
                spec["externalIPs"] = [chance.choice(POD_ADDRESSES)]
            case 2:
                ingress = [{"ip": chance.choice(POD_ADDRESSES)}]
                tree["status"] = {"loadBalancer": {"ingress": ingress}}
            case 3:
                spec["sessionAffinity"] = "ClientIP"
        return tree

    def endpoint_slice(self) -> Tree:
        """One for a service that may be there, with pods by name or by address; its own name may
        be a pod's."""
        chance = self._random
        tree = self._object("EndpointSlice", chance.choice("sxyz"), NAMESPACES, {})
        tree["apiVersion"] = "discovery.k8s.io/v1"
        del tree["spec"]
        tree["metadata"]["labels"] = {"kubernetes.io/service-name": chance.choice("st")}
        tree["addressType"] = "IPv4"
        tree["ports"] = [
            {"name": name, "port": chance.choice(PORTS), "protocol": chance.choice(PROTOCOLS)}
            for name in ("p", "q")
            if chance.random() < 0.8
        ]
        tree["endpoints"] = [self._endpoint() for _ in range(chance.choice((1, 1, 2)))]
        return tree

    def _endpoint(self) -> Tree:
        chance = self._random
        found: Tree = {"addresses": [chance.choice(POD_ADDRESSES)], "nodeName": "n1"}
        if chance.random() < 0.4:
            found["targetRef"] = {"kind": "Pod", "name": chance.choice("xyz")}
            if chance.random() < 0.3:
                found["targetRef"]["namespace"] = chance.choice(NAMESPACES)
        if chance.random() < 0.2:
            found["conditions"] = {"ready": chance.random() < 0.5}
        return found

    def labels(self) -> Tree:
        chance = self._random
        return {name: chance.choice(VALUES[:2]) for name in LABELS if chance.random() < 0.6}

    def _places_of_policies(self) -> tuple[str, ...]:
        return (*NAMESPACES, *NAMESPACES, self._options.root)

    def _selector(self, spec: Tree, share: float) -> None:
        chance = self._random
        if chance.random() < share:
            labels = self.labels() or {"app": chance.choice(VALUES)}
            spec["selector"] = {"matchLabels": labels}
        elif chance.random() < 0.1:
            spec["selector"] = chance.choice(({}, {"matchLabels": {}}, None, {"matchLabels": None}))

    def peers(self) -> Tree:
        chance = self._random
        spec: Tree = {}
        self._selector(spec, 0.5)
        if chance.random() < 0.8:
            spec["mtls"] = {"mode": chance.choice(("UNSET", "STRICT", *MODES))}
        labels = (spec.get("selector") or {}).get("matchLabels")
        if (labels and chance.random() < 0.7) or chance.random() < BAD_SHARE:
            spec["portLevelMtls"] = {
                self._one(PORT_TEXTS, BAD_PORTS[:-1]): {"mode": chance.choice(MODES)}
                for _ in range(chance.choice((1, 1, 2, 3)))
            }
        name = chance.choice(("p", "q", "r"))
        places = (*NAMESPACES, self._options.root, self._options.root)
        tree = self._object("PeerAuthentication", name, places, spec)
        if chance.random() < 0.8:
            tree["metadata"]["creationTimestamp"] = chance.choice(STAMPS)
        return tree

    def authorization(self) -> Tree:
        chance = self._random
        spec: Tree = {}
        self._selector(spec, 0.35)
        action = chance.choice((*["ALLOW", "DENY"] * 5, None, None, "AUDIT", "CUSTOM"))
        if action is not None:
            spec["action"] = action
        if chance.random() < 0.95:
            spec["rules"] = [self._rule() for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3)))]
        if chance.random() < BAD_SHARE / 5:
            spec["rules"] = [{}] * chance.choice((512, 513))
        if chance.random() < 0.06:
            target = {"kind": "Service", "name": "s"}
            name, targets = chance.choice((("targetRef", target), ("targetRefs", [target])))
            spec[name] = chance.choice((targets, targets, {"kind": "x"}, {}, None, []))
            spec.pop("selector" if chance.random() < 0.8 else "", None)
        name = chance.choice(("p", "q", "r"))
        tree = self._object("AuthorizationPolicy", name, self._places_of_policies(), spec)
        if chance.random() < 0.15:
            text = chance.choice(("true", "true", "true", "True", "false", ""))
            tree["metadata"]["annotations"] = {"istio.io/dry-run": text}
        return tree

    def _rule(self) -> Tree:
        chance = self._random
        rule: Tree = {}
        if chance.random() < 0.6:
            rule["from"] = [{"source": self._source()} for _ in range(chance.choice((1, 1, 2)))]
        if chance.random() < 0.4:
            rule["to"] = [{"operation": self._operation()} for _ in range(chance.choice((1, 1, 2)))]
        if chance.random() < 0.3:
            rule["when"] = [self._condition() for _ in range(chance.choice((0, 1, 1, 2)))]
        return rule

    def _source(self) -> Tree:
        chance = self._random
        source: Tree = {}
        kind = chance.randrange(4)
        if kind == 0:
            self._pair(source, "serviceAccounts", self._account)
        else:
            if kind in (1, 3):
                self._pair(source, "principals", self._principal)
            if kind in (2, 3):
                self._pair(source, "namespaces", self._namespace)
        if not source or chance.random() < 0.3:
            self._pair(source, "ipBlocks", self._block)
        if chance.random() < 0.06:
            source[chance.choice(SOURCE_LAYER_7)] = ["*"]
        if chance.random() < 0.02:
            source["serviceAccounts"] = ["a"]
        return source

    def _operation(self) -> Tree:
        chance = self._random
        operation: Tree = {}
        if chance.random() < 0.85:
            self._pair(operation, "ports", self._port)
        if not operation or chance.random() < 0.06:
            operation[chance.choice(OPERATION_LAYER_7)] = ["GET"]
        return operation

    def _condition(self) -> Tree:
        chance = self._random
        makers = {
            "source.ip": self._block,
            "destination.ip": self._block,
            "destination.port": self._port,
            "source.namespace": self._namespace,
            "source.principal": self._principal,
            "source.serviceAccount": self._account,
        }
        key = self._one(tuple(makers), BAD_KEYS)
        if chance.random() < 0.08:
            key = chance.choice(LAYER_7_KEYS)
        condition: Tree = {"key": key}
        make = makers.get(key, self._namespace)
        names = chance.choice((("values",), ("values",), ("notValues",), ("values", "notValues")))
        for name in names:
            condition[name] = [make() for _ in range(chance.choice((1, 1, 2)))]
        return condition

    def _pair(self, tree: Tree, name: str, make: Any) -> None:
        """Values, negative values, or both."""
        negative = "not" + name[0].upper() + name[1:]
        for each in self._random.choice(((name,), (name,), (negative,), (name, negative))):
            number = self._one((1, 1, 1, 2, 3), (16, 17))  # 16 accounts are fine, 17 are not
            tree[each] = [make() for _ in range(number)]

    def _one(self, good: Sequence[Any], bad: Sequence[Any]) -> Any:
        return self._random.choice(bad if self._random.random() < BAD_SHARE else good)

    def _block(self) -> Any:
        return self._one(BLOCKS, BAD_BLOCKS)

    def _port(self) -> Any:
        return self._one(PORT_TEXTS, BAD_PORTS)

    def _account(self) -> Any:
        chance = self._random
        account = chance.choice(ACCOUNTS)
        full = f"{chance.choice((*NAMESPACES, self._options.root))}/{account}"
        return self._one((account, full, full), BAD_ACCOUNTS)

    def _namespace(self) -> Any:
        return self._one((self._pattern(self._random.choice(NAMESPACES)),), BAD_WORDS)

    def _principal(self) -> Any:
        chance = self._random
        domain = chance.choice((self._options.trust_domain, *DOMAINS))
        text = f"{domain}/ns/{chance.choice(NAMESPACES)}/sa/{chance.choice(ACCOUNTS)}"
        return self._one((self._pattern(text),), BAD_WORDS)

    def _pattern(self, text: str) -> str:
        chance = self._random
        cut = chance.randint(0, len(text))
        match chance.randrange(20):
            case 0:
                return "*"
            case 1 | 2 | 3 | 4:
                return text[:cut] + "*"
            case 5 | 6 | 7 | 8:
                return "*" + text[cut:]
            case 9 | 13:
                return text[:cut] + "*" + text[cut:]
            case 10 | 11:
                return chance.choice((f"spiffe://{text}", text.upper()))
            case 12:
                odd = (f"{text} ", f" {text}", f"{text}/", "**", f"*{text}*", f"{text}\n")
                return chance.choice(odd)
            case _:
                return text
