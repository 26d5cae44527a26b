/*
 * connect()'s half of the direct path: decides whether a connection may reach a
 * pod of this node without the ztunnel, and which one. Anything missing, stale,
 * full or odd means no: it is captured as if there were no direct path.
 */
#ifndef TULLE_DIRECT_H
#define TULLE_DIRECT_H

#include "kernel.h"

#define RING_UNREAD 0		/* BPF_RB_AVAIL_DATA */

/* A new destination: a pod of this node, or the ztunnel's listener. */
struct target {
	struct address ip;
	__u32 workload;		/* 0: none that may be reached directly */
	__be16 port;
	__u8 hint;		/* enum hint */
	__u8 pad;
};

/*
 * True for a part of an MPTCP socket, which connect() shows as TCP. Before
 * Linux 5.19 it cannot be recognised: each part is decided by itself.
 */
INLINE int is_multipath(struct bpf_sock *sk)
{
#ifdef TULLE_HAS_MPTCP
	return to_mptcp_socket(sk) != 0;
#else
	return 0;
#endif
}

INLINE void read_bound(struct bpf_sock *sk, struct address *bound)
{
	if (READ32(sk, family) == FAMILY_V4) {
		map_v4(bound, READ32(sk, src_ip4));
	} else {
		READ_ADDRESS(bound, sk, src_ip6);
	}
}

INLINE __u32 workload_at(const struct address *ip)
{
	struct local *local = map_lookup(MAP(LOCALS), ip);

	return local && local->direct ? local->workload : 0;
}

/* Draw an endpoint of a service; if it is not here, fill in the hint only. */
INLINE void draw(const struct pod_value *pod, const struct address *vip,
		 __be16 port, struct target *to)
{
	struct service_key key = { .source = pod->workload, .port = port };
	struct service_value *service;
	struct service_slot *slot;
	__u32 drawn;

	key.vip = *vip;
	service = map_lookup(MAP(SERVICES), &key);
	if (!service)
		return;
	to->hint = HINT_ELSEWHERE;
	drawn = drawn_slot(service, random_u32());
	if (drawn >= SLOTS_MAX)
		return;
	to->hint = HINT_LOCAL;
	slot = &service->slots[drawn];
	to->ip = slot->ip;
	to->port = slot->port;
	if (workload_at(&to->ip) == slot->workload)
		to->workload = slot->workload;
}

INLINE int is_allowed(const struct pod_value *pod, const struct target *to,
		      __u64 generation)
{
	struct verdict_key key = {
		.source = pod->workload,
		.destination = to->workload,
		.port = to->port,
	};
	__u64 *verdict = map_lookup(MAP(VERDICTS), &key);

	return verdict && *verdict == generation;
}

/*
 * True while the pod has fewer open direct connections than one pod may have.
 * Two that end at once may take a count that begins anew below zero.
 */
INLINE int has_room(const struct pod_value *pod)
{
	__u32 workload = pod->workload;
	__u64 *open = map_lookup(MAP(POD_FLOWS), &workload);

	return !open || (__s64)*open < POD_FLOWS_MAX;
}

/* Generation of a running lease, or 0. */
INLINE __u64 running_generation(__u64 now)
{
	__u32 only = 0;
	struct direct_state *state = map_lookup(MAP(DIRECT_STATE), &only);

	return state && lease_runs(state, now) ? state->generation : 0;
}

/* 1: directly to `to`. 0: to the ztunnel, with the hint in `to`. */
INLINE int goes_direct(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
		       const struct pod_value *pod, const struct peer *dialled,
		       struct target *to)
{
#ifdef TULLE_HAS_DIRECT
	struct direct_socket *flow;
	struct address bound;
	__u64 now, generation;

	if (!pod->direct || !pod->workload ||
	    READ32(ctx, protocol) != PROTOCOL_TCP || is_multipath(sk))
		return 0;
	read_bound(sk, &bound);
	if (!may_start_from(pod, &bound)) {
		count(COUNTER_DIRECT_ODD_SOCKET);
		return 0;
	}
	now = now_ns();
	generation = running_generation(now);
	if (!generation) {
		count(COUNTER_DIRECT_NO_LEASE);
		return 0;
	}
	to->workload = workload_at(&dialled->ip);
	to->ip = dialled->ip;
	to->port = dialled->port;
	if (!to->workload)
		draw(pod, &dialled->ip, dialled->port, to);
	if (!to->workload || !may_go_to(pod, &dialled->ip, &to->ip, to->port))
		return 0;
	if (!is_allowed(pod, to, generation)) {
		count(COUNTER_DIRECT_NO_VERDICT);
		return 0;
	}
	if (!has_room(pod)) {
		count(COUNTER_DIRECT_POD_FULL);
		return 0;
	}
	if (ring_query(MAP(FLOWS), RING_UNREAD) > FLOWS_UNREAD_MAX) {
		count(COUNTER_DIRECT_READER_BEHIND);
		return 0;
	}
	flow = sk_storage_get(MAP(DIRECT_SOCKET), sk, 0, STORAGE_CREATE);
	if (!flow) {
		count(COUNTER_STORAGE_FAILED);
		return 0;
	}
	flow->generation = generation;
	flow->opened_ns = now;
	flow->original = dialled->ip;
	flow->original_port = dialled->port;
	flow->target = to->ip;
	flow->target_port = to->port;
	flow->source = pod->workload;
	flow->destination = to->workload;
	count(COUNTER_DIRECT_CHOSEN);
	return 1;
#else
	return 0;
#endif
}

#endif
