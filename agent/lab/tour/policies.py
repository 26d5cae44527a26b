"""The policies of the tour, in the form that Istio users have in their repositories."""

from __future__ import annotations

STRICT = """\
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata:
  name: default
  namespace: istio-system
spec:
  mtls:
    mode: STRICT
"""

RATINGS_FROM_REVIEWS = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: ratings-from-reviews
  namespace: shop
spec:
  selector:
    matchLabels:
      app: ratings
  action: ALLOW
  rules:
  - from:
    - source:
        principals: ["cluster.local/ns/shop/sa/reviews"]
"""

DENY_ALL = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: deny-all
  namespace: shop
spec: {}
"""

NO_CACHE_PORT = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: no-cache-port
  namespace: shop
spec:
  action: DENY
  rules:
  - to:
    - operation:
        ports: ["6379"]
"""

NO_NEIGHBOUR = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: no-neighbour
  namespace: shop
spec:
  selector:
    matchLabels:
      app: postgres
  action: DENY
  rules:
  - from:
    - source:
        principals: ["cluster.local/ns/shop/sa/neighbour"]
"""
