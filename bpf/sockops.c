/*
 * sock_ops: publishes the peer that connect() or the ztunnel stored on a
 * socket, under the socket's own address, before its SYN leaves; moves it to the
 * accepting side's socket. Vouches for direct connections, follows them (flow.h).
 *
 * TCP_CONNECT_CB runs when the local port is chosen and nothing is sent yet, so
 * no accept() can be faster than the entry. Fails closed: without an entry,
 * because it could not be written, the ztunnel closes the connection.
 */
#include "kernel.h"
#include "flow.h"

INLINE void key_of_connecting(struct bpf_sock_ops *ctx,
			      struct connection_key *key)
{
	read_local(ctx, &key->ip);
	key->port = READ32(ctx, local_port);
	read_remote(ctx, &key->to);
	key->to_port = remote_port(ctx);
}

INLINE void key_of_accepted(struct bpf_sock_ops *ctx,
			    struct connection_key *key)
{
	read_remote(ctx, &key->ip);
	key->port = remote_port(ctx);
	read_local(ctx, &key->to);
	key->to_port = READ32(ctx, local_port);
}

/*
 * A connection that leaves the pod, neither redirected nor direct, is its
 * ztunnel's. In the clear, it may meet another captured pod of this node: one
 * that is being enrolled, or that a translated address of the host leads to.
 */
INLINE void tell_passthrough(struct bpf_sock_ops *ctx,
			     const struct pod_value *pod,
			     const struct connection_key *key)
{
	struct peer sender = { .port = TO_BE16(key->port) };
	struct address remote;
	__u64 now = now_ns();

	read_remote(ctx, &remote);
	if (!is_foreign(pod, &remote) || remote_port(ctx) == HBONE_PORT)
		return;
	sender.ip = key->ip;
	if (map_update(MAP(PASSTHROUGH), &sender, &now, 0))
		count(COUNTER_STORAGE_FAILED);
	else
		count(COUNTER_PASSTHROUGH_TOLD);
}

/*
 * The pod's own SYN to itself, as the ztunnel's to the app is: sk_lookup asks
 * for a voucher where somebody outside could forge it.
 */
INLINE void vouch_for_own(const struct connection_key *key)
{
	struct vouched entry = { .own = 1 };
	struct tuple tuple = {};

	if (is_v4(&key->ip) || is_this_host(&key->ip) ||
	    (!same_address(&key->ip, &key->to) && !is_source(&key->ip)))
		return;
	tuple.source = key->ip;
	tuple.source_port = TO_BE16(key->port);
	tuple.destination = key->to;
	tuple.destination_port = TO_BE16(key->to_port);
	if (map_update(MAP(VOUCHED), &tuple, &entry, 0))
		count(COUNTER_STORAGE_FAILED);
}

INLINE void publish(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
		    const struct pod_value *pod, struct connection_key *key)
{
	struct peer *stored;

	key_of_connecting(ctx, key);
	vouch_for_own(key);
	stored = sk_storage_get(MAP(CLAIMED_CLIENT), sk, 0, 0);
	if (stored) {
		if (!stored->port)	/* claimed by address alone: bind.c */
			stored->port = TO_BE16(key->port);
		if (map_update(MAP(CLIENTS), key, stored, 0))
			count(COUNTER_STORAGE_FAILED);
		return;
	}
	/*
	 * The same two ends may have had a connection that was refused, whose
	 * entry was never read: it must not speak for this connection.
	 */
	map_delete(MAP(CLIENTS), key);
	stored = sk_storage_get(MAP(SHOWN_PEER), sk, 0, 0);
	if (!stored) {
		map_delete(MAP(DESTINATIONS), key);
		if (pod)
			tell_passthrough(ctx, pod, key);
		return;
	}
	if (map_update(MAP(DESTINATIONS), key, stored, 0))
		count(COUNTER_STORAGE_FAILED);
	else
		count(COUNTER_DESTINATION_KEPT);
}

/*
 * connect() has steered this socket, and meanwhile its pod was released: the
 * ztunnel, which listens for a while longer, has to know where to.
 */
INLINE int was_steered(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	return remote_port(ctx) == HBONE_PORT &&
	       sk_storage_get(MAP(SHOWN_PEER), sk, 0, 0);
}

/*
 * The client that the ztunnel speaks for. Its entry may have been pushed out of
 * the table while the SYN waited for a full accept queue: then the app sees
 * nobody's address. The source itself is one of 127/8, which apps trust.
 */
INLINE void show_client(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
			struct connection_key *key)
{
	struct peer *client, *shown;

	key_of_accepted(ctx, key);
	client = map_lookup(MAP(CLIENTS), key);
	if (!client && !is_source(&key->ip))
		return;
	shown = sk_storage_get(MAP(SHOWN_PEER), sk, 0, STORAGE_CREATE);
	if (!shown) {
		count(COUNTER_STORAGE_FAILED);
	} else if (client) {
		*shown = *client;
		count(COUNTER_CLIENT_SHOWN);
	} else {
		unspecified(is_v4(&key->ip), &shown->ip);
		shown->port = TO_BE16(key->port);
		count(COUNTER_CLIENT_MISSING);
	}
	map_delete(MAP(CLIENTS), key);
}

/*
 * The ztunnel's end of a steered connection: from here on the destination is the
 * socket's own, so no pod's flood of connects can push it out of the table while
 * the ztunnel is busy. Without memory it stays where it is.
 */
INLINE void keep_destination(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
			     struct connection_key *key)
{
	struct peer *to, *kept;

	key_of_accepted(ctx, key);
	to = map_lookup(MAP(DESTINATIONS), key);
	if (!to)
		return;
	kept = sk_storage_get(MAP(ORIGINAL), sk, 0, STORAGE_CREATE);
	if (!kept) {
		count(COUNTER_STORAGE_FAILED);
		return;
	}
	*kept = *to;
	map_delete(MAP(DESTINATIONS), key);
}

/* All handshakes of the node pass here; those without our flag are done. */
INLINE void follow_direct(struct bpf_sock_ops *ctx, __u32 op)
{
#ifdef TULLE_HAS_DIRECT
	if (!(READ32(ctx, bpf_sock_ops_cb_flags) & STATE_CALLBACK))
		return;
	if (op == OP_STATE)
		follow(ctx);
	else
		open_flow(ctx);
#endif
}

int sockops(struct bpf_sock_ops *ctx)
{
	struct connection_key key = {};
	struct pod_value *pod;
	struct bpf_sock *sk;
	__u32 op = READ32(ctx, op);

	if (op == OP_STATE || op == OP_CONNECTED) {
		follow_direct(ctx, op);
		return 1;
	}
	if (op != OP_TCP_CONNECT && op != OP_ACCEPTED)
		return 1;
	key.netns = netns_cookie(ctx);
	pod = map_lookup(MAP(PODS), &key.netns);
	if (!pod && op == OP_ACCEPTED)
		return 1;
	sk = READ_POINTER(ctx, sk);	/* once: each read may give NULL */
	if (!sk)
		return 1;
	if (!pod && !was_steered(ctx, sk))
		return 1;
	if (pod && op == OP_ACCEPTED) {
		accept_flow(ctx, pod);
		if (READ32(ctx, local_port) == HBONE_PORT)
			keep_destination(ctx, sk, &key);
		else
			show_client(ctx, sk, &key);
		return 1;
	}
	if (!pod || !vouch(ctx, sk, pod))
		publish(ctx, sk, pod, &key);
	return 1;
}
