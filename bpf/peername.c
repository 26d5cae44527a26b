/*
 * cgroup/getpeername4 and getpeername6, which accept() passes as well: show the
 * app the address that it dialled, or the client that the ztunnel speaks for.
 *
 * Decides nothing. Without an entry on the socket the kernel's own answer
 * stands. The entry is the only filter: a socket that was never captured has
 * none, at the price of one pointer test, and one whose pod was released keeps
 * its peer.
 */
#include "kernel.h"

INLINE struct peer *shown_peer(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = READ_POINTER(ctx, sk);

	return sk ? sk_storage_get(MAP(SHOWN_PEER), sk, 0, 0) : 0;
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer *peer = shown_peer(ctx);

	if (!peer)
		return 1;
	/* A client of the other family is 0.0.0.0, and no address of 127/8. */
	WRITE32(ctx, user_ip4,
		peer_fits(FAMILY_V4, &peer->ip) ? peer->ip.word[3] : 0);
	WRITE32(ctx, user_port, peer->port);
	return 1;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct peer *peer = shown_peer(ctx);

	if (!peer)
		return 1;
	WRITE_ADDRESS(ctx, user_ip6, &peer->ip);
	WRITE32(ctx, user_port, peer->port);
	return 1;
}
