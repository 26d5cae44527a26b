"""Type URLs and method paths, once."""

from __future__ import annotations

ADDRESS_TYPE = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION_TYPE = "type.googleapis.com/istio.security.Authorization"
POD_TYPE = "type.googleapis.com/tulle.node.v1.Pod"
NAMESPACE_TYPE = "type.googleapis.com/tulle.node.v1.Namespace"

DELTA_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
CREATE_CERTIFICATE_METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
REPORT_METHOD = "/tulle.node.v1.Enrolment/Report"

MESSAGE_BYTES_MAX = 200 * 1024 * 1024  # accepted by Istio's ztunnel in one xDS message
