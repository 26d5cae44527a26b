/*
 * sk_lookup: chooses the socket for a SYN that arrives in an enrolled pod. The
 * ztunnel's outbound listener gets what connect() steered to it, its HBONE
 * listener port 15008. A direct connection of this node that was vouched for
 * goes to the app itself, and so does the kubelet's probe of a port that the pod
 * names for that. The ztunnel's plaintext listener gets the rest from outside,
 * but never a captured pod's own SYN: one that nobody vouches for, or not any
 * more, is refused, because as plaintext it would be nobody's, and a DENY would
 * miss it. Where the ztunnel would refuse any plaintext, the SYN is refused: a
 * handshake first would look like a port that is open.
 *
 * One instance per pod, with a listener map of its own: its key is the pod's
 * uid and not the address, so a reused address can never meet an old listener.
 * Fails closed: no listener, no connection (the client sees a refusal).
 */
#include "kernel.h"

#define SK_DROP 0
#define SK_PASS 1
#define NO_REUSEPORT 2		/* BPF_SK_LOOKUP_F_NO_REUSEPORT */
#define LOOPBACK_IFINDEX 1	/* lo is the first device of every netns */

INLINE int arrived_on_loopback(struct bpf_sk_lookup *ctx)
{
#ifdef TULLE_HAS_INGRESS_IFINDEX
	/* By offset: BCC's own header may be older than the field (5.17). */
	return READ32_AT(ctx, 64) == LOOPBACK_IFINDEX;
#else
	return 0;	/* only 127/8 and ::1 come by lo: see their source */
#endif
}

INLINE void read_tuple(struct bpf_sk_lookup *ctx, const struct address *remote,
		       const struct address *local, struct tuple *tuple)
{
	tuple->source = *remote;
	tuple->destination = *local;
	/* Network order in 16 bits; before 5.18 in the same 16 of 32. */
	tuple->source_port = (__be16)READ32(ctx, remote_port);
	tuple->destination_port = TO_BE16((__u16)READ32(ctx, local_port));
}

INLINE void read_addresses(struct bpf_sk_lookup *ctx, struct address *remote,
			   struct address *local)
{
	if (READ32(ctx, family) == FAMILY_V4) {
		map_v4(remote, READ32(ctx, remote_ip4));
		map_v4(local, READ32(ctx, local_ip4));
		return;
	}
	READ_ADDRESS(remote, ctx, remote_ip6);
	READ_ADDRESS(local, ctx, local_ip6);
}

/*
 * True when the sender at this address and port is a captured pod's ztunnel. A
 * pod's own connect() goes to its ztunnel or has a voucher.
 */
INLINE int is_passthrough(const struct tuple *tuple, __u64 now)
{
	struct peer sender = { .port = tuple->source_port };
	__u64 *at_ns;

	sender.ip = tuple->source;
	at_ns = map_lookup(MAP(PASSTHROUGH), &sender);
	if (!at_ns || !passthrough_holds(*at_ns, now))
		return 0;
	count(COUNTER_INBOUND_PASSTHROUGH);
	return 1;
}

/*
 * True for a probe of the kubelet that this pod asks for. Any other connection
 * of the kubelet (in k3s, of the API server too) is plaintext, as if nobody had
 * vouched for it.
 */
INLINE int is_probe(const struct vouched *vouched, const struct address *local,
		    __u32 port, __u64 now)
{
	struct local *pod = map_lookup(MAP(LOCALS), local);

	if (!pod || !probe_holds(vouched, pod, now) ||
	    !map_lookup(MAP(PROBES), &port))
		return 0;
	count(COUNTER_INBOUND_PROBE);
	return 1;
}

enum vouching {
	VOUCHING_UNVOUCHED = 0,
	VOUCHING_STALE = 1,
	VOUCHING_HOLDS = 2,	/* to the app */
	VOUCHING_NONE = 3,	/* plaintext */
};

/*
 * State of our own sock_ops' vouching for this SYN. The address must still
 * belong to the pod that it was meant for.
 */
INLINE enum vouching vouching_of(struct bpf_sk_lookup *ctx,
				 const struct address *remote,
				 const struct address *local)
{
	struct tuple tuple = {};
	struct direct_state *state;
	struct vouched *vouched;
	struct local *pod;
	__u64 now = now_ns();
	__u32 only = 0;

	read_tuple(ctx, remote, local, &tuple);
	vouched = map_lookup(MAP(VOUCHED), &tuple);
	if (vouched && vouched->probe) {
		if (is_probe(vouched, local, READ32(ctx, local_port), now))
			return VOUCHING_HOLDS;
		vouched = 0;
	}
	if (!vouched) {
		if (!map_lookup(MAP(LOCALS), remote) ||
		    is_passthrough(&tuple, now))
			return VOUCHING_NONE;
		return VOUCHING_UNVOUCHED;
	}
	state = map_lookup(MAP(DIRECT_STATE), &only);
	pod = map_lookup(MAP(LOCALS), local);
	if (state && pod && vouch_holds(state, vouched, pod, now)) {
		count(COUNTER_INBOUND_VOUCHED);
		return VOUCHING_HOLDS;
	}
	return VOUCHING_STALE;
}

/*
 * True for a SYN of the pod to itself. Until the pod is in `locals`, as while it
 * is being enrolled, sock_ops may not know it yet.
 */
INLINE int is_from_inside(struct bpf_sk_lookup *ctx,
			  const struct address *remote,
			  const struct address *local)
{
	struct tuple tuple = {};
	struct vouched *vouched;

	read_tuple(ctx, remote, local, &tuple);
	vouched = map_lookup(MAP(VOUCHED), &tuple);
	if (vouched)
		return vouched->own;
	return !is_link_local_v6(local) && !map_lookup(MAP(LOCALS), local);
}

INLINE int plaintext_is_refused(__u32 port)
{
	__u32 others = 0, *rule = map_lookup(MAP(PLAINTEXT), &port);

	if (!rule)
		rule = map_lookup(MAP(PLAINTEXT), &others);
	return rule && *rule == PLAINTEXT_REFUSE;
}

/* Refuse the SYN, and keep what the agent's log line says about it. */
INLINE int refuse_syn(struct bpf_sk_lookup *ctx, const struct address *remote,
		      const struct address *local, __u32 reason)
{
	__u32 slot = slot_of_refused(remote);
	struct refused_slot *last = map_lookup(MAP(REFUSED), &slot);

	count(reason);
	if (!last)
		return SK_DROP;
	last->source = *remote;
	last->source_port = (__be16)READ32(ctx, remote_port);
	last->destination = *local;
	last->destination_port = TO_BE16((__u16)READ32(ctx, local_port));
	last->reason = reason;
	last->count += 1;	/* per CPU, as the counters */
	return SK_DROP;
}

/*
 * The fate of a SYN, in one word: PASSED to whoever listens, GIVEN to the
 * ztunnel's listener in a role, or TURNED_AWAY for a reason, which is its
 * counter's number. First it is chosen, then one place acts: the verifier walks
 * each way to an act by itself, and this way needs two thirds of the time, for
 * each pod that starts.
 */
#define PASSED 0
#define GIVEN 0x100
#define TURNED_AWAY 0x200
#define ROLE_OR_REASON 0xff

INLINE __u32 plaintext(struct bpf_sk_lookup *ctx, const struct address *remote,
		       const struct address *local)
{
	switch (vouching_of(ctx, remote, local)) {
	case VOUCHING_HOLDS:
		return PASSED;
	case VOUCHING_UNVOUCHED:
		return TURNED_AWAY | COUNTER_INBOUND_UNVOUCHED;
	case VOUCHING_STALE:
		return TURNED_AWAY | COUNTER_INBOUND_STALE;
	default:
		break;
	}
	if (plaintext_is_refused(READ32(ctx, local_port)))
		return TURNED_AWAY | COUNTER_INBOUND_STRICT;
	return GIVEN | ROLE_PLAINTEXT;
}

INLINE __u32 choose(struct bpf_sk_lookup *ctx, const struct address *remote,
		    const struct address *local)
{
	switch (inbound_verdict(arrived_on_loopback(ctx), remote, local,
				READ32(ctx, local_port))) {
	case INBOUND_PASS:
		count(COUNTER_INBOUND_LOCAL);
		return PASSED;
	case INBOUND_OWN:
		if (!is_from_inside(ctx, remote, local))
			return TURNED_AWAY | COUNTER_INBOUND_UNVOUCHED;
		count(COUNTER_INBOUND_LOCAL);
		return PASSED;
	case INBOUND_OUTBOUND:
		return GIVEN | ROLE_OUTBOUND;
	case INBOUND_HBONE:
		return GIVEN | ROLE_HBONE;
	case INBOUND_PLAINTEXT:
		return plaintext(ctx, remote, local);
	default:
		return TURNED_AWAY | COUNTER_INBOUND_REFUSED;
	}
}

INLINE __u32 counter_of(__u32 role)
{
	if (role == ROLE_HBONE)
		return COUNTER_INBOUND_HBONE;
	return role == ROLE_PLAINTEXT ? COUNTER_INBOUND_PLAINTEXT :
					COUNTER_INBOUND_OUTBOUND;
}

/* 1 if the SYN is with the listener in that role; 0 if there is none. */
INLINE int give(struct bpf_sk_lookup *ctx, const struct address *remote,
		__u32 role)
{
	__u32 slot = listener_slot(role, remote,
				   (__be16)READ32(ctx, remote_port));
	struct bpf_sock *listener = map_lookup(MAP(LISTENERS), &slot);
	long failed;

	if (!listener)
		return 0;
	/* To this very socket: a process of the pod may join its group. */
	failed = sk_assign(ctx, listener, NO_REUSEPORT);
	sk_release(listener);
	if (failed)
		return 0;
	count(counter_of(role));
	return 1;
}

int sklookup(struct bpf_sk_lookup *ctx)
{
	struct address remote, local;
	__u32 choice;

	if (READ32(ctx, protocol) != PROTOCOL_TCP)
		return SK_PASS;
	read_addresses(ctx, &remote, &local);
	choice = choose(ctx, &remote, &local);
	/* Or the compiler copies the acts to each place that chooses them. */
	asm volatile("" : "+r"(choice));
	if (choice == PASSED)
		return SK_PASS;
	if (choice & GIVEN) {
		if (give(ctx, &remote, choice & ROLE_OR_REASON))
			return SK_PASS;
		choice = COUNTER_INBOUND_DROPPED;
	}
	return refuse_syn(ctx, &remote, &local, choice & ROLE_OR_REASON);
}
