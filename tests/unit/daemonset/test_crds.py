"""The definitions of Istio's kinds: what they take, and that their bounds are the reader's."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from control.server.sources import security
from daemonset.tools import crds

KINDS = {
    each["spec"]["names"]["kind"]: each["spec"]["versions"] for each in crds.definitions().values()
}


def schema_of(kind: str) -> dict[str, Any]:
    """The schema as the API server prunes and validates: an unknown field is an error."""

    def closed(part: Any) -> Any:
        if isinstance(part, list):
            return [closed(each) for each in part]
        if not isinstance(part, dict):
            return part
        made = {key: closed(value) for key, value in part.items()}
        is_open = "additionalProperties" in part or part.get("x-kubernetes-preserve-unknown-fields")
        if "properties" in part and not is_open:
            made["additionalProperties"] = False
        return made

    schema: dict[str, Any] = closed(KINDS[kind][0]["schema"]["openAPIV3Schema"])
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    return schema


GOOD = {
    "allow-all": "kind: AuthorizationPolicy\nspec: {rules: [{}]}",
    "deny-all": "kind: AuthorizationPolicy\nspec: {}",
    "waypoint": """
kind: AuthorizationPolicy
spec:
  targetRefs: [{kind: Service, group: "", name: web}]
  action: DENY
  rules:
    - from: [{source: {requestPrincipals: ["*"]}}]
      to: [{operation: {methods: [GET], paths: [/admin*], hosts: [a.example]}}]
""",
    "layer 4": """
kind: AuthorizationPolicy
spec:
  selector: {matchLabels: {app: web}}
  action: ALLOW
  rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/web], ipBlocks: [10.0.0.0/8]}}]
      to: [{operation: {ports: ["80", "443"]}}]
      when: [{key: source.namespace, notValues: [outside]}]
status: {conditions: [{type: Accepted, status: "True"}], foreign: 1}
""",
    "strict": "kind: PeerAuthentication\nspec: {mtls: {mode: STRICT}}",
    "ports": """
kind: PeerAuthentication
spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {"80": {mode: DISABLE}}}
""",
}
BAD = {
    "unknown action": "kind: AuthorizationPolicy\nspec: {action: REFUSE}",
    "slip in a name": "kind: AuthorizationPolicy\nspec: {rule: []}",
    "slip in a source": """
kind: AuthorizationPolicy
spec: {rules: [{from: [{source: {principal: [a]}}]}]}
""",
    "number as port": """
kind: AuthorizationPolicy
spec: {rules: [{to: [{operation: {ports: [80]}}]}]}
""",
    "empty from": "kind: AuthorizationPolicy\nspec: {rules: [{from: []}]}",
    "from without source": "kind: AuthorizationPolicy\nspec: {rules: [{from: [{}]}]}",
    "condition without key": "kind: AuthorizationPolicy\nspec: {rules: [{when: [{values: [a]}]}]}",
    "too many rules": f"kind: AuthorizationPolicy\nspec: {{rules: {[{}] * 513}}}",
    "target without name": "kind: AuthorizationPolicy\nspec: {targetRefs: [{kind: Service}]}",
    "long label": f"""
kind: AuthorizationPolicy
spec: {{selector: {{matchLabels: {{a: {"b" * 64}}}}}}}
""",
    "unknown mode": "kind: PeerAuthentication\nspec: {mtls: {mode: strict}}",
    "no ports": "kind: PeerAuthentication\nspec: {portLevelMtls: {}}",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_good_objects_are_taken(text: str) -> None:
    value = yaml.safe_load(text)
    jsonschema.validate(value, schema_of(value["kind"]))


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_bad_objects_are_refused(text: str) -> None:
    value = yaml.safe_load(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema_of(value["kind"]))


def test_the_bounds_are_those_of_the_reader() -> None:
    assert crds.RULES_MAX == security.RULES_MAX
    assert crds.VALUES_MAX == security.VALUES_MAX
    assert crds.TARGETS_MAX == security.TARGET_REFS_MAX
    assert crds.ACCOUNTS_MAX == security.SERVICE_ACCOUNTS_MAX
    assert crds.ACCOUNT_CHARACTERS_MAX == security.SERVICE_ACCOUNT_CHARS_MAX


def parts(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for each in schema for found in parts(each)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(found for each in schema.values() for found in parts(each))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_list_is_bounded_as_the_cost_of_rules_needs_it(kind: str) -> None:
    """The API server adds up what a CEL rule may cost; without bounds it refuses the definition."""
    for version in KINDS[kind]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for part in parts(spec):
            if part.get("type") == "array":
                assert "maxItems" in part
            if "x-kubernetes-validations" in part and "additionalProperties" in part:
                assert "maxProperties" in part
            for each in part.get("x-kubernetes-validations", []):
                assert each["message"]


def test_one_version_is_stored_and_both_are_served() -> None:
    for versions in KINDS.values():
        assert [each["name"] for each in versions] == ["v1", "v1beta1"]
        assert [each["name"] for each in versions if each["storage"]] == ["v1beta1"]
        assert all(each["subresources"] == {"status": {}} for each in versions)
        columns = [each["name"] for each in versions[0]["additionalPrinterColumns"]]
        assert columns[1:] == ["Accepted", "Attached", "Reason", "Age"]
