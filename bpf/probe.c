/*
 * sock_ops on the kubelet's own cgroup: vouches for the SYN of a probe, so that
 * the destination's sk_lookup lets it pass to the app. The kernel recognises the
 * kubelet by the cgroup in which the socket was made; a port or an address would
 * say nothing. Where containers stay in the cgroup of what started them (k3s with
 * cgroups of both versions), their network namespace keeps them out. Whether the
 * pod asks for probes of that port, its sk_lookup knows.
 *
 * Fails closed: without an entry the SYN is plaintext of nobody. The entry goes
 * when the app accepts (flow.h) or the socket closes, whichever is first, so it
 * never speaks for the next socket on the host that has the same port.
 */
#include "kernel.h"
#include "flow.h"

INLINE void tuple_of_probe(struct bpf_sock_ops *ctx, struct tuple *tuple)
{
	read_local(ctx, &tuple->source);
	tuple->source_port = TO_BE16((__u16)READ32(ctx, local_port));
	read_remote(ctx, &tuple->destination);
	tuple->destination_port = TO_BE16(remote_port(ctx));
}

INLINE void vouch_for_probe(struct bpf_sock_ops *ctx)
{
	struct vouched entry = { .probe = 1 };
	struct tuple tuple = {};
	struct local *pod;
	__u32 only = 0;
	__u64 *netns = map_lookup(MAP(KUBELET_NETNS), &only);

	if (!netns || *netns != netns_cookie(ctx))
		return;
	tuple_of_probe(ctx, &tuple);
	pod = map_lookup(MAP(LOCALS), &tuple.destination);
	if (!pod || !pod->workload)
		return;
	entry.at_ns = now_ns();
	entry.destination = pod->workload;
	if (follow_states(ctx) || map_update(MAP(VOUCHED), &tuple, &entry, 0))
		count(COUNTER_STORAGE_FAILED);
	else
		count(COUNTER_PROBE_VOUCHED);
}

int probe(struct bpf_sock_ops *ctx)
{
	__u32 op = READ32(ctx, op);
	struct tuple tuple = {};

	if (op == OP_TCP_CONNECT) {
		vouch_for_probe(ctx);
	} else if (op == OP_STATE && READ32(ctx, args[1]) == STATE_CLOSE) {
		tuple_of_probe(ctx, &tuple);
		map_delete(MAP(VOUCHED), &tuple);
	}
	return 1;
}
