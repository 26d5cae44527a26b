"""A pod that comes and goes under changing accounts, and policies that let in one account each."""

from __future__ import annotations

_POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: churn
  namespace: mesh
  labels: {{app: only-{account}, tier: churn}}
  annotations:
    tulle.io/lab-node: {node}
    tulle.io/lab-command: python3 echo.py 8080
    tulle.io/lab-ready-tcp: "8080"
spec: {{serviceAccountName: {account}, containers: [{{name: app}}]}}
"""
_ALLOW = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {app}, namespace: mesh}}
spec:
  action: ALLOW
  selector: {{matchLabels: {{app: {app}}}}}
  rules: [{{from: [{{source: {{principals: ["cluster.local/ns/mesh/sa/{account}"]}}}}]}}]
"""


def churning(node: str, account: str) -> str:
    """The pod, on this node, under this account; its label is that of the account's policy."""
    return _POD.format(node=node, account=account)


def only(account: str, app: str = "") -> str:
    """A policy that lets this account alone into `app`: the pod that has the same account."""
    return _ALLOW.format(app=app or f"only-{account}", account=account)
