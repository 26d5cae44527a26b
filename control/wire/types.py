"""Type URLs and method paths, once."""

from __future__ import annotations

ADDRESS_TYPE = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION_TYPE = "type.googleapis.com/istio.security.Authorization"
POD_TYPE = "type.googleapis.com/tulle.node.v1.Pod"
NAMESPACE_TYPE = "type.googleapis.com/tulle.node.v1.Namespace"

# Envoy's, in the order in which they are sent: nothing is named before it is there.
_ENVOY = "type.googleapis.com/envoy.config"
CLUSTER_TYPE = f"{_ENVOY}.cluster.v3.Cluster"
ENDPOINT_TYPE = f"{_ENVOY}.endpoint.v3.ClusterLoadAssignment"
LISTENER_TYPE = f"{_ENVOY}.listener.v3.Listener"
SCOPE_TYPE = f"{_ENVOY}.route.v3.ScopedRouteConfiguration"
ROUTE_TYPE = f"{_ENVOY}.route.v3.RouteConfiguration"
KINDS_OF_ENVOY = (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, SCOPE_TYPE, ROUTE_TYPE)
SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

DELTA_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
CREATE_CERTIFICATE_METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
REPORT_METHOD = "/tulle.node.v1.Enrolment/Report"

MESSAGE_BYTES_MAX = 200 * 1024 * 1024  # accepted by Istio's ztunnel in one xDS message
