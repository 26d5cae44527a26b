"""The group security.istio.io as CustomResourceDefinitions, for clusters without Istio.

Objects that Istio takes are taken, waypoint fields included: what is beyond L4 is decided by the
control plane, which refuses with a reason, not by a schema that would stop a GitOps sync.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "chart/crds-istio"
GROUP = "security.istio.io"
Schema = dict[str, Any]

# Bounds of Istio's schemas where it has them, and of our reader (control/server/sources/security).
RULES_MAX = 512
ENTRIES_MAX = 512  # from, to, when of one rule
VALUES_MAX = 4096
LABELS_MAX = 4096
LABEL_VALUE_MAX = 63
TARGETS_MAX = 16
ACCOUNTS_MAX = 16
ACCOUNT_CHARACTERS_MAX = 320
PORTS_MAX = 1024
CONDITIONS_MAX = 32

HEAD = """\
# Made by `make manifests`; put into a cluster only where Istio's own definitions are not.
"""


def text(description: str = "", **more: Any) -> Schema:
    return described({"type": "string", **more}, description)


def described(schema: Schema, description: str) -> Schema:
    return {"description": description, **schema} if description else schema


def listed(items: Schema, most: int, description: str = "", **more: Any) -> Schema:
    return described({"type": "array", "maxItems": most, "items": items, **more}, description)


def fields(properties: dict[str, Schema], description: str = "", **more: Any) -> Schema:
    return described({"type": "object", "properties": properties, **more}, description)


def must(rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message}


def selector() -> Schema:
    labels = {
        "type": "object",
        "description": "Labels that a pod must have, all of them.",
        "maxProperties": LABELS_MAX,
        "additionalProperties": {"type": "string", "maxLength": LABEL_VALUE_MAX},
        "x-kubernetes-validations": [
            must("self.all(key, key.size() > 0)", "a label's key must not be empty"),
            must("self.all(key, !key.contains('*'))", "a label's key takes no wildcard"),
            must("self.all(key, !self[key].contains('*'))", "a label's value takes no wildcard"),
        ],
    }
    return fields({"matchLabels": labels}, "Pods of the namespace; without it, all of them.")


def target() -> Schema:
    names = {"group": 253, "kind": 63, "name": 253, "namespace": 253}
    schema = {name: text(maxLength=most) for name, most in names.items()}
    for name in ("kind", "name"):
        schema[name]["minLength"] = 1
    return fields(schema, required=["kind", "name"])


_NAMES = {
    "principals": "Identities of clients, as trust-domain/ns/NAMESPACE/sa/ACCOUNT.",
    "requestPrincipals": "Waypoints only: identities from request tokens.",
    "namespaces": "Namespaces of clients.",
    "ipBlocks": "Addresses of clients, as CIDR blocks.",
    "remoteIpBlocks": "Waypoints only: addresses from headers.",
    "trustDomains": "Trust domains of clients.",
    "serviceAccounts": "Accounts of clients, as NAMESPACE/ACCOUNT or ACCOUNT.",
}
_OPERATIONS = {
    "ports": "Ports of the destination pod.",
    "hosts": "Waypoints only.",
    "methods": "Waypoints only.",
    "paths": "Waypoints only.",
}


def both_ways(names: dict[str, str]) -> dict[str, Schema]:
    """Each name, and its negation `notName`."""
    found: dict[str, Schema] = {}
    for name, description in names.items():
        items, most = text(), VALUES_MAX
        if name == "serviceAccounts":
            items, most = text(maxLength=ACCOUNT_CHARACTERS_MAX), ACCOUNTS_MAX
        negation = f"not{name[0].upper()}{name[1:]}"
        found[name] = listed(items, most, description)
        found[negation] = listed(items, most, f"None of these: {name}.")
    return found


def rule() -> Schema:
    source = fields(
        both_ways(_NAMES),
        **{
            "x-kubernetes-validations": [
                must(
                    "!(has(self.serviceAccounts) || has(self.notServiceAccounts)) || "
                    "!(has(self.principals) || has(self.notPrincipals) || "
                    "has(self.namespaces) || has(self.notNamespaces))",
                    "serviceAccounts cannot stand beside principals or namespaces",
                )
            ]
        },
    )
    condition = fields(
        {
            "key": text("Name of an attribute, such as source.namespace.", minLength=1),
            "values": listed(text(), VALUES_MAX, "One of these."),
            "notValues": listed(text(), VALUES_MAX, "None of these."),
        },
        required=["key"],
        **{
            "x-kubernetes-validations": [
                must("has(self.values) || has(self.notValues)", "values or notValues is needed")
            ]
        },
    )
    origin = listed(
        fields({"source": source}, required=["source"]), ENTRIES_MAX, "Clients.", minItems=1
    )
    operations = listed(
        fields({"operation": fields(both_ways(_OPERATIONS))}, required=["operation"]),
        ENTRIES_MAX,
        "Destinations.",
        minItems=1,
    )
    when = listed(condition, ENTRIES_MAX, "Further conditions.")
    return fields({"from": origin, "to": operations, "when": when})


def status() -> Schema:
    condition = fields(
        {
            "type": text("Accepted, Attached.", maxLength=316),
            "status": text(enum=["True", "False", "Unknown"]),
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "lastTransitionTime": text(format="date-time"),
            "lastProbeTime": text(format="date-time"),
            "reason": text(maxLength=1024),
            "message": text(maxLength=32768),
        },
        required=["type", "status"],
    )
    conditions = listed(
        condition,
        CONDITIONS_MAX,
        "Written by the control plane.",
        **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    return fields(
        {
            "conditions": conditions,
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        },
        **{"x-kubernetes-preserve-unknown-fields": True},
    )


def authorization_policy() -> Schema:
    properties = {
        "selector": selector(),
        "targetRef": target(),
        "targetRefs": listed(target(), TARGETS_MAX, "Waypoints only."),
        "action": text("ALLOW when it is not given.", enum=["ALLOW", "DENY", "AUDIT", "CUSTOM"]),
        "rules": listed(rule(), RULES_MAX, "One must match. Without any, none does."),
        "provider": fields({"name": text()}, "Of CUSTOM, which waypoints know."),
    }
    alone = "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0)"
    return fields(
        properties,
        "Who may connect to the pods that are selected.",
        **{
            "x-kubernetes-validations": [
                must(
                    f"{alone} + (has(self.targetRefs) ? 1 : 0) <= 1",
                    "only one of selector, targetRef and targetRefs may be set",
                ),
                must(
                    "!has(self.provider) || (has(self.action) && self.action == 'CUSTOM')",
                    "provider is for the action CUSTOM",
                ),
            ]
        },
    )


def mutual_tls() -> Schema:
    modes = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]
    return fields({"mode": text("STRICT: only from the mesh.", enum=modes)})


def peer_authentication() -> Schema:
    ports = {
        "type": "object",
        "description": "Modes of single ports of the pods.",
        "minProperties": 1,
        "maxProperties": PORTS_MAX,
        "additionalProperties": mutual_tls(),
        "x-kubernetes-validations": [
            must(
                "self.all(key, key.matches('^[1-9][0-9]{0,4}$') && int(key) <= 65535)",
                "a port is a number from 1 to 65535",
            )
        ],
    }
    return fields(
        {"selector": selector(), "mtls": mutual_tls(), "portLevelMtls": ports},
        "The pods' side of mutual TLS.",
        **{
            "x-kubernetes-validations": [
                must(
                    "!has(self.portLevelMtls) || (has(self.selector) && "
                    "has(self.selector.matchLabels) && self.selector.matchLabels.size() > 0)",
                    "portLevelMtls needs a selector",
                )
            ]
        },
    )


def column(name: str, path: str, kind: str = "string", **more: Any) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, **more}


def condition_column(name: str) -> Schema:
    return column(name, f'.status.conditions[?(@.type=="{name}")].status')


def definition(kind: str, plural: str, short: str, spec: Schema, first_column: Schema) -> Schema:
    """One definition; both versions have one schema, so none needs converting."""
    schema = fields({"spec": spec, "status": status()})
    columns = [
        first_column,
        condition_column("Accepted"),
        condition_column("Attached"),
        column("Reason", '.status.conditions[?(@.type=="Accepted")].reason', priority=1),
        column("Age", ".metadata.creationTimestamp", "date"),
    ]
    versions = [
        {
            "name": name,
            "served": True,
            "storage": name == "v1beta1",  # as Istio: it can be installed later
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}},
            "additionalPrinterColumns": columns,
        }
        for name in ("v1", "v1beta1")
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "labels": {
                "app.kubernetes.io/part-of": "tulle",
                "app.kubernetes.io/name": "tulle-crds",
            },
            # Policies outlive an uninstallation.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["istio-io", "security-istio-io"],
            },
            "versions": versions,
        },
    }


def definitions() -> dict[str, Schema]:
    """File name -> definition."""
    return {
        "authorizationpolicies.yaml": definition(
            "AuthorizationPolicy",
            "authorizationpolicies",
            "ap",
            authorization_policy(),
            column("Action", ".spec.action"),
        ),
        "peerauthentications.yaml": definition(
            "PeerAuthentication",
            "peerauthentications",
            "pa",
            peer_authentication(),
            column("Mode", ".spec.mtls.mode"),
        ),
    }


class NoAliases(yaml.SafeDumper):
    """A dumper that writes a shared part twice: YAML anchors surprise readers and some tools."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(value: Any) -> str:
    return yaml.dump(value, Dumper=NoAliases, sort_keys=False, width=100, allow_unicode=True)


def files() -> dict[Path, str]:
    return {FOLDER / name: HEAD + dump(value) for name, value in definitions().items()}
