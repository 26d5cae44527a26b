#!/bin/sh
# In each virtual machine, as root: k3s, and the image of the mesh. It stops at the first failure.
set -eu
: "${ROLE:?server or agent}" "${SERVER:?address of the server}" "${ADDRESS:?our own}"
TOKEN=tulle-on-a-private-network
export DEBIAN_FRONTEND=noninteractive

case $ROLE in
server) flags="server --disable traefik --disable metrics-server --write-kubeconfig-mode 0644" ;;
agent) flags="agent --server https://$SERVER:6443" ;;
*)
	echo "provision: server or agent, not $ROLE" >&2
	exit 2
	;;
esac

command -v curl >/dev/null && command -v git >/dev/null || {
	apt-get update -q
	apt-get install -y -q --no-install-recommends ca-certificates curl git
}
if ! command -v k3s >/dev/null; then
	# The interface of the private network: the first one is Vagrant's own, the same on all machines.
	interface=$(ip -o -4 addr show | awk -v address="$ADDRESS/" 'index($4, address) == 1 { print $2 }')
	[ -n "$interface" ] || {
		echo "provision: no interface has the address $ADDRESS" >&2
		exit 1
	}
	curl -sfL https://get.k3s.io -o /tmp/k3s-install.sh
	INSTALL_K3S_EXEC="$flags --node-ip $ADDRESS --flannel-iface $interface" K3S_TOKEN=$TOKEN \
		sh /tmp/k3s-install.sh
fi
k3s ctr images import /tmp/image.tar

if [ "$ROLE" = server ]; then
	rm -rf /opt/tulle
	git clone --quiet /tmp/tulle.bundle /opt/tulle
	cat >/tmp/install.sh <<-'INSTALL'
		set -eu
		for i in $(seq 60); do
			[ "$(k3s kubectl get nodes --no-headers 2>/dev/null | grep -c ' Ready')" -ge 3 ] && break
			sleep 2
		done
		k3s kubectl apply --server-side -k /opt/tulle/daemonset/manifests/overlays/k3s
		for part in deployment/tulle-control daemonset/tulle-agent daemonset/tulle-ztunnel; do
			k3s kubectl -n tulle-system rollout status "$part" --timeout=180s
		done
		k3s kubectl label --overwrite namespace default istio.io/dataplane-mode=ambient
		k3s kubectl apply -f /opt/tulle/daemonset/samples/bookinfo.yaml
		for part in client details-v1 productpage-v1 ratings-v1 reviews-v1 reviews-v2 reviews-v3; do
			k3s kubectl rollout status "deployment/$part" --timeout=180s
		done
	INSTALL
fi
