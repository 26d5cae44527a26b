/*
 * sock_ops: publish under a socket's own address what connect() or the tunnel
 * stored on it, before its SYN leaves; hand it to the accepting side.
 *
 * TCP_CONNECT_CB runs with the local port chosen and nothing sent yet, so no
 * accept() can be faster than the entry. If an entry cannot be written the
 * tunnel finds none and closes: fails closed.
 */
#include "kernel.h"

#define OP_TCP_CONNECT 3	/* BPF_SOCK_OPS_TCP_CONNECT_CB */
#define OP_ACCEPTED 5		/* BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB */

INLINE void key_of_connecting(struct bpf_sock_ops *ctx, struct socket_key *key)
{
	if (ctx->family == FAMILY_V4) {
		map_v4(&key->ip, ctx->local_ip4);
	} else {
		READ_ADDRESS(&key->ip, ctx, local_ip6);
	}
	key->port = ctx->local_port;
}

INLINE void key_of_accepted(struct bpf_sock_ops *ctx, struct socket_key *key)
{
	if (ctx->family == FAMILY_V4) {
		map_v4(&key->ip, ctx->remote_ip4);
	} else {
		READ_ADDRESS(&key->ip, ctx, remote_ip6);
	}
	/* network order in 32 bits: the port is the upper half */
	key->port = __builtin_bswap32(ctx->remote_port);
}

INLINE void publish(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
		    struct socket_key *key)
{
	struct peer *stored;

	key_of_connecting(ctx, key);
	stored = sk_storage_get(MAP(CLAIMED_CLIENT), sk, 0, 0);
	if (stored) {
		if (!stored->port)	/* claimed by address alone: bind.c */
			stored->port = TO_BE16(key->port);
		if (map_update(MAP(CLIENTS), key, stored, 0))
			count(COUNTER_STORAGE_FAILED);
		return;
	}
	/*
	 * The port may have served a connection that was refused and so never
	 * read its entry: what it left must not speak for this one.
	 */
	map_delete(MAP(CLIENTS), key);
	stored = sk_storage_get(MAP(SHOWN_PEER), sk, 0, 0);
	if (!stored) {
		map_delete(MAP(DESTINATIONS), key);
		return;
	}
	if (map_update(MAP(DESTINATIONS), key, stored, 0))
		count(COUNTER_STORAGE_FAILED);
	else
		count(COUNTER_DESTINATION_KEPT);
}

INLINE void show_client(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
			struct socket_key *key)
{
	struct peer *client, *shown;

	key_of_accepted(ctx, key);
	client = map_lookup(MAP(CLIENTS), key);
	if (!client)
		return;
	shown = sk_storage_get(MAP(SHOWN_PEER), sk, 0, STORAGE_CREATE);
	if (shown) {
		*shown = *client;
		count(COUNTER_CLIENT_SHOWN);
	} else {
		count(COUNTER_STORAGE_FAILED);
	}
	map_delete(MAP(CLIENTS), key);
}

int sockops(struct bpf_sock_ops *ctx)
{
	struct socket_key key = {};
	struct bpf_sock *sk;
	__u32 op = ctx->op;

	if (op != OP_TCP_CONNECT && op != OP_ACCEPTED)
		return 1;
	key.netns = netns_cookie(ctx);
	if (!map_lookup(MAP(PODS), &key.netns))
		return 1;
	sk = ctx->sk;			/* read once: each read may be NULL */
	if (!sk)
		return 1;
	if (op == OP_TCP_CONNECT)
		publish(ctx, sk, &key);
	else
		show_client(ctx, sk, &key);
	return 1;
}
