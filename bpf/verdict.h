/*
 * The decisions of the kernel half. They call no helper and touch no map, so
 * plain cc builds them too, and a unit test compares them with the same rules
 * in Python. In doubt a rule denies.
 */
#ifndef TULLE_VERDICT_H
#define TULLE_VERDICT_H

#include "address.h"

#define LEVEL_IP 0		/* SOL_IP */
#define LEVEL_IPV6 41		/* SOL_IPV6 */
#define FAMILY_V4 2		/* AF_INET */
#define FAMILY_V6 10		/* AF_INET6 */

/* Linux's TCP states that are followed here. */
enum tcp_state {
	STATE_ESTABLISHED = 1,
	STATE_SYN_SENT = 2,
	STATE_FIN_WAIT2 = 5,
	STATE_CLOSE = 7,
	STATE_CLOSE_WAIT = 8,
	STATE_LAST_ACK = 9,
	STATE_CLOSING = 11,
};

enum outbound_verdict {
	OUTBOUND_DENY_CLOSED = 0,
	OUTBOUND_DENY_NO_ADDRESS = 1,
	OUTBOUND_DENY_LINK_LOCAL = 2,
	OUTBOUND_PASS = 3,
	OUTBOUND_CAPTURE_V4 = 4,
	OUTBOUND_CAPTURE_V6 = 5,
};

enum inbound_verdict {
	INBOUND_REFUSE = 0,
	INBOUND_PASS = 1,	/* from inside the pod */
	INBOUND_HBONE = 2,
	INBOUND_PLAINTEXT = 3,
	INBOUND_OUTBOUND = 4,	/* the pod's own, steered here by connect() */
	INBOUND_OWN = 5,	/* from inside, if sock_ops vouches for it */
};

/*
 * The slot of one role's listener. The same for all packets of a connection: an
 * ACK with a SYN cookie must meet the listener that gave the cookie.
 */
INLINE __u32 listener_slot(enum listener_role role, const struct address *from,
			   __be16 port)
{
	return role * ROLE_SLOTS +
	       (__u32)(spread(from, port) >> (64 - ROLE_SLOTS_BITS));
}

/* The slot for a refused SYN from there. */
INLINE __u32 slot_of_refused(const struct address *from)
{
	return (__u32)(spread(from, 0) >> (64 - REFUSED_SLOTS_BITS));
}

INLINE int is_own(const struct pod_value *pod, const struct address *ip)
{
	return (pod->has4 && same_address(ip, &pod->ip4)) ||
	       (pod->has6 && same_address(ip, &pod->ip6));
}

/* True when a socket in the pod that binds to it takes a foreign address. */
INLINE int is_foreign(const struct pod_value *pod, const struct address *ip)
{
	return !is_this_host(ip) && !is_multicast(ip) && !is_own(pod, ip) &&
	       !is_in_block(ip);
}

/*
 * Destination of an enrolled pod's connect(). The block's addresses are local.
 *
 * Multicast passes, because TCP cannot use it: the kernel answers ENETUNREACH.
 * fe80::/10 is refused: it would reach a neighbour on the link in the clear,
 * and its scope id would not survive the way through the ztunnel.
 */
INLINE int outbound_verdict(const struct pod_value *pod,
			    const struct address *dst)
{
	if (is_this_host(dst) || is_in_block(dst) || is_multicast(dst) ||
	    is_own(pod, dst))
		return OUTBOUND_PASS;
	if (pod->mode != POD_CAPTURE)
		return OUTBOUND_DENY_CLOSED;
	if (is_v4(dst))
		return pod->has4 ? OUTBOUND_CAPTURE_V4
				 : OUTBOUND_DENY_NO_ADDRESS;
	if (is_link_local_v6(dst))
		return OUTBOUND_DENY_LINK_LOCAL;
	return pod->has6 ? OUTBOUND_CAPTURE_V6 : OUTBOUND_DENY_NO_ADDRESS;
}

/*
 * True when a socket bound to this address may go direct. From a foreign
 * address its SYN would arrive unvouched, so the ztunnel takes it.
 */
INLINE int may_start_from(const struct pod_value *pod,
			  const struct address *bound)
{
	int v6_any = !bound->word[0] && !bound->word[1] && !bound->word[2] &&
		     !bound->word[3];
	int v4_any = is_v4(bound) && !bound->word[3];

	return v6_any || v4_any || is_own(pod, bound);
}

/* True for the dialled family, any port but HBONE's, and not the pod itself. */
INLINE int may_go_to(const struct pod_value *pod, const struct address *dialled,
		     const struct address *ip, __be16 port)
{
	return is_v4(dialled) == is_v4(ip) && port != TO_BE16(HBONE_PORT) &&
	       !is_own(pod, ip);
}

INLINE int lease_runs(const struct direct_state *state, __u64 now)
{
	return state->generation && state->lease_until_ns > now;
}

/*
 * The slot of a service's local endpoint by this draw; SLOTS_MAX: it is
 * elsewhere. `random` is a u32; the bias of its remainder is negligible.
 */
INLINE __u32 drawn_slot(const struct service_value *service, __u32 random)
{
	__u32 drawn, slot;

	if (!service->total)
		return SLOTS_MAX;
	drawn = random % service->total;
	for (slot = 0; slot < SLOTS_MAX; slot++)
		if (slot < service->count &&
		    drawn < service->slots[slot].cumulative)
			return slot;
	return SLOTS_MAX;
}

/*
 * True when the SYN of a direct connect() may still be vouched for. A deferred
 * one (TCP_FASTOPEN_CONNECT) leaves with its first data, perhaps much later.
 */
INLINE int may_vouch(const struct direct_state *state, __u64 generation,
		     __u64 opened_ns, __u64 now)
{
	if (now - opened_ns < VOUCH_GRACE_NS)
		return 1;
	return lease_runs(state, now) && state->generation == generation;
}

/*
 * True when a SYN may pass to this pod as vouched for. One that is sent again
 * counts from the first one; by then no agent may be there to end its
 * generation, so the lease must run, and the pod must still be direct.
 */
INLINE int vouch_holds(const struct direct_state *state,
		       const struct vouched *vouched, const struct local *pod,
		       __u64 now)
{
	if (!pod->workload || vouched->destination != pod->workload)
		return 0;
	return (pod->direct && lease_runs(state, now) &&
		vouched->generation == state->generation) ||
	       now - vouched->at_ns < VOUCH_GRACE_NS;
}

/* The same for a SYN of the kubelet, which no generation and no lease allows. */
INLINE int probe_holds(const struct vouched *vouched, const struct local *pod,
		       __u64 now)
{
	return vouched->probe && pod->workload &&
	       vouched->destination == pod->workload &&
	       now - vouched->at_ns < PROBE_GRACE_NS;
}

/* True while a SYN of a ztunnel, in the clear, may still be on its way. */
INLINE int passthrough_holds(__u64 at_ns, __u64 now)
{
	return now - at_ns < PASSTHROUGH_NS;
}

/*
 * Follow a direct socket's state. The kernel counts a SYN and a FIN as a byte
 * each; the states that a socket went through tell whether they are in its
 * counts. FIN_WAIT2 ends with the other side's FIN, or, once the app has closed
 * the socket, without it: then nothing has been received since.
 */
INLINE void flow_state(struct direct_socket *flow, __u32 from, __u32 to,
		       __u64 received)
{
	if (to == STATE_ESTABLISHED)
		flow->established = 1;
	if (to == STATE_CLOSE_WAIT || to == STATE_CLOSING)
		flow->fin_received = 1;
	if (to == STATE_FIN_WAIT2) {
		flow->fin_acked = 1;
		flow->received = received;
	}
	if (to != STATE_CLOSE)
		return;
	if (from == STATE_FIN_WAIT2 && received != flow->received)
		flow->fin_received = 1;
	if (from == STATE_CLOSING || from == STATE_LAST_ACK)
		flow->fin_acked = 1;
}

INLINE __u64 bytes_sent(const struct direct_socket *flow, __u64 acked)
{
	__u64 control = flow->established + flow->fin_acked;

	return acked > control ? acked - control : 0;
}

INLINE __u64 bytes_received(const struct direct_socket *flow, __u64 received)
{
	return received > flow->fin_received ? received - flow->fin_received
					     : 0;
}

/* True when an end left without a FIN; FIN_WAIT2 closed by the app has one. */
INLINE int was_aborted(const struct direct_socket *flow, __u32 from)
{
	return flow->established && from != STATE_FIN_WAIT2 &&
	       !(flow->fin_acked && flow->fin_received);
}

/*
 * Verdict on a SYN that arrives in an enrolled netns. The block's addresses are
 * the mesh's and the HBONE port is the ztunnel's, whoever dials them: a ztunnel
 * may dial its own pod by HBONE.
 *
 * Any other SYN from inside the pod travels over lo, but one to the pod's own
 * address reports the other interface: then its two ends are equal, or its
 * source is a loopback address or one of the block. The kernel drops such v4
 * sources from outside as martians, and ::1. A forged v6 one would be answered
 * to the pod itself, but what a first segment carries (TCP fast open, of a server
 * that asks for no cookie) would be with the app: so it needs a voucher.
 */
INLINE int inbound_verdict(int from_loopback_device,
			   const struct address *remote,
			   const struct address *local, __u32 local_port)
{
	if (is_in_block(local))
		return local_port == HBONE_PORT && !is_source(local)
			       ? INBOUND_OUTBOUND
			       : INBOUND_REFUSE;
	if (local_port == HBONE_PORT)
		return INBOUND_HBONE;
	if (from_loopback_device || is_this_host(remote))
		return INBOUND_PASS;
	if (!same_address(remote, local) && !is_source(remote))
		return INBOUND_PLAINTEXT;
	return is_v4(remote) ? INBOUND_PASS : INBOUND_OWN;
}

/*
 * The family of the sockaddr to answer with; 0: no answer. SOL_IP gets v4
 * destinations only and SOL_IPV6 v6 ones only, so that a proxy that asks both
 * (v4 first) always gets the right form.
 */
INLINE int destination_family(int level, const struct address *destination)
{
	int v4 = is_v4(destination);

	if (level == LEVEL_IP && v4)
		return FAMILY_V4;
	if (level == LEVEL_IPV6 && !v4)
		return FAMILY_V6;
	return 0;
}

/* True when a socket of this family can show that peer; v4 cannot show v6. */
INLINE int peer_fits(int family, const struct address *ip)
{
	return family == FAMILY_V6 || (family == FAMILY_V4 && is_v4(ip));
}

#endif
