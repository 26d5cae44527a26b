"""The waypoint and the routes of the tour, in the form that Gateway API users have."""

from __future__ import annotations

USE = "istio.io/use-waypoint=waypoint"

CANARY = """\
apiVersion: v1
kind: Service
metadata: {name: reviews-v1, namespace: shop}
spec:
  selector: {app: reviews, version: v1}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v2, namespace: shop}
spec:
  selector: {app: reviews, version: v2}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: reviews
  namespace: shop
spec:
  parentRefs:
  - {group: "", kind: Service, name: reviews, port: 80}
  rules:
  - matches: [{path: {type: Exact, value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect:
        statusCode: 301
        path: {type: ReplaceFullPath, replaceFullPath: /}
  - matches: [{path: {type: PathPrefix, value: /flaky}}]
    backendRefs: [{name: reviews-v1, port: 80}]
    retry: {attempts: 2, codes: [503], backoff: 50ms}
  - matches: [{path: {type: PathPrefix, value: /slow}}]
    backendRefs: [{name: reviews-v1, port: 80}]
    timeouts: {request: 500ms}
  - matches: [{headers: [{name: x-version, value: "2"}]}]
    backendRefs: [{name: reviews-v2, port: 80}]
  - backendRefs:
    - {name: reviews-v1, port: 80, weight: 80}
    - {name: reviews-v2, port: 80, weight: 20}
"""

READERS = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: readers
  namespace: shop
spec:
  targetRefs:
  - {group: "", kind: Service, name: reviews}
  action: ALLOW
  rules:
  - from:
    - source:
        principals: ["cluster.local/ns/shop/sa/shopper"]
    to:
    - operation:
        methods: ["GET"]
"""
