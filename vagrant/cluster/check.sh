#!/bin/sh
# Claims about the cluster, with kubectl alone: traffic, STRICT, policy, probes. Ends with 0 if all
# hold. It runs anywhere that has a kubeconfig and the sample: KUBECTL="kubectl" check.sh
set -u
KUBECTL=${KUBECTL:-k3s kubectl}
SAMPLES=${SAMPLES:-/opt/tulle/daemonset/samples}
failed=0

# The words of $KUBECTL are a command and its flags.
# shellcheck disable=SC2086
k() { $KUBECTL "$@"; }

ask() { # URL from the client's pod: prints the answer, or fails within 10 s
	k exec deploy/client -- python3 -c \
		"import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())" "$1" 2>/dev/null
}

claim() { # NAME COMMAND…: within a minute
	name=$1
	shift
	for _ in $(seq 30); do
		if "$@" >/dev/null 2>&1; then
			echo "ok      $name"
			return
		fi
		sleep 2
	done
	echo "FAILED  $name"
	failed=1
}

page_is_whole() { ask http://productpage:9080 | grep -q '"ratings"'; }
client_is_seen() {
	address=$(k get pod -l app=client -o jsonpath='{.items[0].status.podIP}')
	ask http://details:9080 | grep -q "\"client\": \"$address\""
}
captured() {
	! k get pods -l version \
		-o jsonpath='{range .items[*]}{.metadata.annotations.ambient\.istio\.io/redirection}{"\n"}{end}' |
		grep -qv '^enabled$' # an empty line is a pod that says nothing
}
stranger_is_refused() {
	! k -n outside exec stranger -- python3 -c \
		"import urllib.request as r; r.urlopen('http://details.default:9080', timeout=5)" >/dev/null 2>&1
}
all_ready() { k wait --for=condition=Ready pod -l version --timeout=1s; }
ratings_refuse_the_client() { ! ask http://ratings:9080; }
reviews_reach_ratings() { ask http://reviews:9080; }

claim "the page comes from all services" page_is_whole
claim "servers see their client's address" client_is_seen
claim "pods say that they are captured" captured

k create namespace outside >/dev/null 2>&1
k -n outside run stranger --image=tulle:0.1.0 --command -- sleep infinity >/dev/null 2>&1
k -n outside wait --for=condition=Ready pod/stranger --timeout=60s >/dev/null
k apply -f "$SAMPLES/strict.yaml" >/dev/null
claim "STRICT: a stranger is refused" stranger_is_refused
claim "STRICT: the mesh goes on" page_is_whole
claim "STRICT: probes pass" all_ready

k apply -f "$SAMPLES/policies.yaml" >/dev/null
claim "policy: the client may not ask ratings" ratings_refuse_the_client
claim "policy: reviews may" reviews_reach_ratings

k delete -f "$SAMPLES/policies.yaml" -f "$SAMPLES/strict.yaml" >/dev/null 2>&1
k delete namespace outside --wait=false >/dev/null 2>&1
exit $failed
