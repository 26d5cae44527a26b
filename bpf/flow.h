/*
 * sock_ops' half of the direct path: vouches for a direct connection's SYN, and
 * reports to the agent when it opens and ends. It vouches only for a socket
 * that connect() has marked, that goes where it was sent, and whose end will be
 * reported.
 */
#ifndef TULLE_FLOW_H
#define TULLE_FLOW_H

#include "kernel.h"

#define OP_TCP_CONNECT 3	/* BPF_SOCK_OPS_TCP_CONNECT_CB */
#define OP_CONNECTED 4		/* BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB */
#define OP_ACCEPTED 5		/* BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB */
#define OP_STATE 10		/* BPF_SOCK_OPS_STATE_CB */

#define STATE_CALLBACK 4	/* BPF_SOCK_OPS_STATE_CB_FLAG */

INLINE void read_local(struct bpf_sock_ops *ctx, struct address *ip)
{
	if (READ32(ctx, family) == FAMILY_V4) {
		map_v4(ip, READ32(ctx, local_ip4));
	} else {
		READ_ADDRESS(ip, ctx, local_ip6);
	}
}

INLINE void read_remote(struct bpf_sock_ops *ctx, struct address *ip)
{
	if (READ32(ctx, family) == FAMILY_V4) {
		map_v4(ip, READ32(ctx, remote_ip4));
	} else {
		READ_ADDRESS(ip, ctx, remote_ip6);
	}
}

/* The field has the port in network order, in the upper half of 32 bits. */
INLINE __u16 remote_port(struct bpf_sock_ops *ctx)
{
	return __builtin_bswap32(READ32(ctx, remote_port));
}

/* Ask for a callback at each change of the socket's state; 0: granted. */
INLINE long follow_states(struct bpf_sock_ops *ctx)
{
	__u32 flags = READ32(ctx, bpf_sock_ops_cb_flags);

	return set_callbacks(ctx, flags | STATE_CALLBACK);
}

INLINE void tuple_of(const struct direct_socket *flow, struct tuple *tuple)
{
	tuple->source = flow->client;
	tuple->source_port = flow->client_port;
	tuple->destination = flow->target;
	tuple->destination_port = flow->target_port;
}

INLINE int is_late(const struct direct_socket *flow, __u64 now)
{
	__u32 only = 0;
	struct direct_state *state = map_lookup(MAP(DIRECT_STATE), &only);

	return !state ||
	       !may_vouch(state, flow->generation, flow->opened_ns, now);
}

/* True when it goes where connect() sent it, from the pod's own address. */
INLINE int is_as_chosen(struct pod_value *pod, const struct direct_socket *flow,
			const struct tuple *tuple)
{
	if (!is_own(pod, &flow->client)) {
		/* Routed from another address, as it would be every time. */
		pod->direct = 0;
		return 0;
	}
	/* Another program may have changed the destination. */
	return same_address(&tuple->destination, &flow->target) &&
	       tuple->destination_port == flow->target_port;
}

/* Before the SYN: true when it may pass the destination's sk_lookup. */
INLINE int may_pass(struct bpf_sock_ops *ctx, struct pod_value *pod,
		    const struct direct_socket *flow, const struct tuple *tuple,
		    __u64 now)
{
	if (follow_states(ctx)) {
		count(COUNTER_STORAGE_FAILED);	/* no report of its end */
		return 0;
	}
	if (!is_as_chosen(pod, flow, tuple)) {
		count(COUNTER_DIRECT_ODD_SOCKET);
		return 0;
	}
	if (is_late(flow, now)) {
		count(COUNTER_DIRECT_LATE);
		return 0;
	}
	return 1;
}

/*
 * Before the SYN. 0: not a direct socket. One that may not pass gets an entry
 * without a destination: its SYN leaves all the same, perhaps from an address
 * that `locals` does not know, and must not be taken for plaintext of a client
 * outside the mesh. For the same reason the ztunnel's last SYN from this port
 * does not speak for it.
 */
INLINE int vouch(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
		 struct pod_value *pod)
{
	struct direct_socket *flow =
		sk_storage_get(MAP(DIRECT_SOCKET), sk, 0, 0);
	struct vouched entry = {};
	struct tuple tuple = {};
	struct peer sender = {};

	if (!flow)
		return 0;
	read_local(ctx, &flow->client);
	flow->client_port = TO_BE16((__u16)READ32(ctx, local_port));
	tuple.source = flow->client;
	tuple.source_port = flow->client_port;
	read_remote(ctx, &tuple.destination);
	tuple.destination_port = TO_BE16(remote_port(ctx));
	entry.at_ns = now_ns();
	if (may_pass(ctx, pod, flow, &tuple, entry.at_ns)) {
		entry.generation = flow->generation;
		entry.destination = flow->destination;
	}
	sender.ip = tuple.source;
	sender.port = tuple.source_port;
	map_delete(MAP(PASSTHROUGH), &sender);
	if (map_update(MAP(VOUCHED), &tuple, &entry, 0))
		count(COUNTER_STORAGE_FAILED);
	else if (entry.destination)
		count(COUNTER_DIRECT_VOUCHED);
	return 1;
}

/* A connection in its client's view, from the accepting side's context. */
INLINE void tuple_of_accepted(struct bpf_sock_ops *ctx, struct tuple *tuple)
{
	read_remote(ctx, &tuple->source);
	tuple->source_port = TO_BE16(remote_port(ctx));
	read_local(ctx, &tuple->destination);
	tuple->destination_port = TO_BE16((__u16)READ32(ctx, local_port));
}

INLINE void reverse(const struct tuple *tuple, struct tuple *back)
{
	back->source = tuple->destination;
	back->source_port = tuple->destination_port;
	back->destination = tuple->source;
	back->destination_port = tuple->source_port;
}

/* Both directions or none: see SHORTCUTS_MAX. */
INLINE void open_shortcut(struct bpf_sock_ops *ctx,
			  const struct direct_socket *flow)
{
	struct local *local = map_lookup(MAP(LOCALS), &flow->target);
	struct tuple tuple = {}, back = {};
	struct shortcut way = {};
	__u64 netns = netns_cookie(ctx);
	struct pod_value *pod = map_lookup(MAP(PODS), &netns);

	if (!pod || !pod->device || !local || !local->device)
		return;
	tuple_of(flow, &tuple);
	reverse(&tuple, &back);
	way.source = pod->device;
	way.target = local->device;
	if (map_update(MAP(SHORTCUTS), &tuple, &way, 0)) {
		count(COUNTER_SHORTCUT_FULL);
		return;
	}
	way.source = local->device;
	way.target = pod->device;
	if (map_update(MAP(SHORTCUTS), &back, &way, 0)) {
		map_delete(MAP(SHORTCUTS), &tuple);
		count(COUNTER_SHORTCUT_FULL);
		return;
	}
	count(COUNTER_SHORTCUT_OPENED);
}

/*
 * The second end to close removes the shortcut. The first one may still have to
 * answer the other's FIN, and the host's conntrack does not know these two.
 */
INLINE void close_shortcut(const struct tuple *tuple)
{
	struct shortcut *way = map_lookup(MAP(SHORTCUTS), tuple);
	struct tuple back = {};

	if (!way)
		return;
	if (!way->ending) {
		way->ending = 1;
		return;
	}
	reverse(tuple, &back);
	map_delete(MAP(SHORTCUTS), tuple);
	map_delete(MAP(SHORTCUTS), &back);
}

/*
 * The accepting side is established: no more SYNs have to pass. The pod itself
 * is the only one to be believed; others may give themselves its address.
 */
INLINE void accept_flow(struct bpf_sock_ops *ctx, const struct pod_value *pod)
{
	struct tuple tuple = {};

	tuple_of_accepted(ctx, &tuple);
	if (!is_own(pod, &tuple.destination))
		return;
	map_delete(MAP(VOUCHED), &tuple);
	if (map_lookup(MAP(SHORTCUTS), &tuple))
		follow_states(ctx);
}

/* A socket with our flag and without storage has accepted its connection. */
INLINE void end_accepted(struct bpf_sock_ops *ctx)
{
	__u64 netns = netns_cookie(ctx);
	struct pod_value *pod = map_lookup(MAP(PODS), &netns);
	struct tuple tuple = {};

	tuple_of_accepted(ctx, &tuple);
	if (pod && is_own(pod, &tuple.destination))
		close_shortcut(&tuple);
}

INLINE void tell(struct bpf_sock_ops *ctx, const struct direct_socket *flow,
		 __u8 kind, __u8 aborted)
{
	struct flow_event *event = ring_reserve(MAP(FLOWS), sizeof(*event), 0);

	if (!event) {
		count(COUNTER_FLOW_LOST);
		return;
	}
	event->id = socket_cookie(ctx);
	event->generation = flow->generation;
	event->opened_ns = flow->opened_ns;
	event->age_ns = now_ns() - flow->opened_ns;
	event->sent = bytes_sent(flow, READ64(ctx, bytes_acked));
	event->received = bytes_received(flow, READ64(ctx, bytes_received));
	event->client = flow->client;
	event->target = flow->target;
	event->original = flow->original;
	event->source = flow->source;
	event->destination = flow->destination;
	event->srtt_us = READ32(ctx, srtt_us) >> 3;	/* kept in eighths */
	event->retransmits = READ32(ctx, total_retrans);
	event->client_port = flow->client_port;
	event->target_port = flow->target_port;
	event->original_port = flow->original_port;
	event->kind = kind;
	event->aborted = aborted;
	ring_submit(event, 0);
	count(COUNTER_FLOW_TOLD);
}

/*
 * After a direct connect() has failed, the next one goes to the ztunnel, which
 * can log the reason.
 */
INLINE void forget_verdict(const struct direct_socket *flow)
{
	struct verdict_key key = {
		.source = flow->source,
		.destination = flow->destination,
		.port = flow->target_port,
	};

	map_delete(MAP(VERDICTS), &key);
}

/*
 * Count a pod's open connections. A pod whose entry was pushed out begins anew:
 * it may then have more of them for a while.
 */
INLINE void pod_has_one_more(__u32 workload)
{
	__u64 one = 1, *open = map_lookup(MAP(POD_FLOWS), &workload);

	if (!open && map_update(MAP(POD_FLOWS), &workload, &one, NO_EXIST))
		open = map_lookup(MAP(POD_FLOWS), &workload);
	else if (!open)
		return;
	if (open)
		__sync_fetch_and_add(open, 1);
}

INLINE void pod_has_one_less(__u32 workload)
{
	__u64 *open = map_lookup(MAP(POD_FLOWS), &workload);

	if (open && (__s64)*open > 0)
		__sync_fetch_and_add(open, -1);
}

INLINE void end_flow(struct bpf_sock_ops *ctx,
		     const struct direct_socket *flow, __u32 from)
{
	struct tuple tuple = {};

	tuple_of(flow, &tuple);
	map_delete(MAP(VOUCHED), &tuple);
	close_shortcut(&tuple);
	if (!flow->established) {
		forget_verdict(flow);
		tell(ctx, flow, FLOW_FAILED, 0);
		return;
	}
	pod_has_one_less(flow->source);
	tell(ctx, flow, FLOW_CLOSED, was_aborted(flow, from));
}

/* A change of state of a socket for which vouch() set the callback. */
INLINE void follow(struct bpf_sock_ops *ctx)
{
	__u32 from = READ32(ctx, args[0]), to = READ32(ctx, args[1]);
	struct bpf_sock *sk = READ_POINTER(ctx, sk);
	struct direct_socket *flow;

	if (!sk)
		return;
	flow = sk_storage_get(MAP(DIRECT_SOCKET), sk, 0, 0);
	if (!flow) {
		if (to == STATE_CLOSE)
			end_accepted(ctx);
		return;
	}
	flow_state(flow, from, to, READ64(ctx, bytes_received));
	if (to != STATE_CLOSE)
		return;
	end_flow(ctx, flow, from);
	sk_storage_delete(MAP(DIRECT_SOCKET), sk);	/* may be used again */
}

/* The handshake is done: from now on there is a round-trip time. */
INLINE void open_flow(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = READ_POINTER(ctx, sk);
	struct direct_socket *flow;

	if (!sk)
		return;
	flow = sk_storage_get(MAP(DIRECT_SOCKET), sk, 0, 0);
	if (!flow)
		return;
	pod_has_one_more(flow->source);
	tell(ctx, flow, FLOW_OPENED, 0);
	open_shortcut(ctx, flow);
}

#endif
